//! [`Tools`]: where Open vSwitch's programs, its schema and its libraries are.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Where Open vSwitch is.
#[derive(Clone, Debug)]
pub struct Tools(BTreeMap<String, PathBuf>);

/// The programs that are needed.
const PROGRAMS: [&str; 4] = ["ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovsdb-tool"];
/// Folders of programs that are not in everybody's PATH.
const MORE_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

impl Tools {
    /// The installed one, by these folders of programs, written as in PATH.
    ///
    /// # Errors
    /// What is missing.
    pub fn installed(path: Option<&OsStr>) -> anyhow::Result<Self> {
        let folders: Vec<_> = path
            .map(std::env::split_paths)
            .into_iter()
            .flatten()
            .chain(MORE_FOLDERS.map(PathBuf::from))
            .collect();
        let mut found = BTreeMap::new();
        for program in PROGRAMS {
            let file = folders.iter().map(|folder| folder.join(program)).find(|file| file.is_file());
            let Some(file) = file else { bail!("Open vSwitch is not installed: there is no {program}") };
            found.insert(program.to_owned(), file);
        }
        let prefixes = folders.iter().filter_map(|folder| folder.parent());
        let schema = prefixes
            .map(|prefix| prefix.join("share/openvswitch/vswitch.ovsschema"))
            .find(|file| file.is_file());
        found.insert(
            "schema".to_owned(),
            schema.context("Open vSwitch is installed without its vswitch.ovsschema")?,
        );
        Ok(Self(found))
    }

    /// Those that lines of `NAME=PATH` tell, of which `libraries` may be empty.
    pub fn told(lines: &str) -> Self {
        let lines = lines.lines().filter_map(|line| line.split_once('='));
        Self(lines.map(|(name, path)| (name.to_owned(), path.into())).collect())
    }

    /// A file of it.
    pub(crate) fn path(&self, name: &str) -> anyhow::Result<&Path> {
        self.0.get(name).map(PathBuf::as_path).with_context(|| format!("there is no {name} of Open vSwitch"))
    }

    /// The folder of its libraries, where that is not the system's.
    pub(crate) fn libraries(&self) -> Option<&Path> {
        self.0.get("libraries").map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_one_is_found_with_its_schema_and_a_missing_one_named() {
        let root = tempfile::tempdir().unwrap();
        let (programs, share) = (root.path().join("sbin"), root.path().join("share/openvswitch"));
        std::fs::create_dir_all(&programs).unwrap();
        std::fs::create_dir_all(&share).unwrap();
        let path = Some(programs.as_os_str());
        for program in PROGRAMS {
            std::fs::write(programs.join(program), "").unwrap();
        }
        std::fs::write(share.join("vswitch.ovsschema"), "").unwrap();
        let tools = Tools::installed(path).unwrap();
        assert_eq!(tools.path("ovs-vswitchd").unwrap(), programs.join("ovs-vswitchd"));
        assert_eq!(tools.path("schema").unwrap(), share.join("vswitch.ovsschema"));
        assert_eq!(tools.libraries(), None);
    }

    #[test]
    fn lines_tell_of_one_that_is_elsewhere() {
        let tools = Tools::told("ovs-vsctl=/x/ovs-vsctl\nlibraries=/x/lib\n");
        assert_eq!(tools.libraries(), Some(Path::new("/x/lib")));
        assert!(tools.path("ovsdb-tool").unwrap_err().to_string().contains("no ovsdb-tool"));
    }
}
