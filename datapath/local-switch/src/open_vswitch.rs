//! [`OpenVSwitch`]: its two daemons, started, killed and started again.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use virtnet_netlink::Namespace;
use virtnet_ovsdb::Address;

use crate::programs::Programs;
use crate::tools::Tools;

/// How long a program may take to be there, on a machine that is busy too.
const START: Duration = Duration::from_secs(60);

/// An Open vSwitch that runs. It ends with the value.
#[derive(Debug)]
pub struct OpenVSwitch {
    programs: Programs,
    tools: Tools,
    namespace: Arc<Namespace>,
    folder: TempDir,
}

/// The database's server.
pub const DATABASE: &str = "ovsdb-server";
/// The switch.
pub const SWITCH: &str = "ovs-vswitchd";

impl OpenVSwitch {
    /// Starts one that has these bridges and nothing else.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start<'a>(tools: Tools, bridges: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("virtnet-ovs-").tempdir().context("making a folder")?;
        let namespace = Arc::new(Namespace::new().context("making a network namespace: root is needed")?);
        let programs = Programs::inside(folder.path(), Arc::clone(&namespace));
        let mut switch = Self { programs, tools, namespace, folder };
        switch.make_database()?;
        switch.start_database()?;
        switch.vsctl(&["--no-wait", "init"])?;
        switch.start_switch()?;
        // Answered when ovs-vswitchd has acted on it.
        for bridge in bridges {
            switch.vsctl(&["add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev"])?;
        }
        Ok(switch)
    }

    /// Where its database is.
    pub fn address(&self) -> Address {
        Address::Unix(self.socket())
    }

    /// Its database's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("db.sock")
    }

    /// A folder that goes with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The network namespace that its ports are in.
    pub fn namespace(&self) -> Arc<Namespace> {
        Arc::clone(&self.namespace)
    }

    /// Makes an empty database, in place of the one that is there.
    ///
    /// # Errors
    /// Where ovsdb-tool fails.
    pub fn make_database(&self) -> anyhow::Result<()> {
        let file = self.folder.path().join("conf.db");
        if file.exists() {
            std::fs::remove_file(&file).context("removing the database")?;
        }
        let schema = self.tools.path("schema")?.to_string_lossy().into_owned();
        self.tool("ovsdb-tool", &["create", &file.to_string_lossy(), &schema]).map(drop)
    }

    /// Starts the database's server, which must not run.
    ///
    /// # Errors
    /// Where it does not listen soon.
    pub fn start_database(&mut self) -> anyhow::Result<()> {
        let socket = self.socket();
        // That of one that was killed.
        let _ = std::fs::remove_file(&socket);
        let mut command = self.command(DATABASE)?;
        command.arg(self.folder.path().join("conf.db")).arg(format!("--remote=punix:{}", socket.display()));
        self.daemon(&mut command, DATABASE);
        self.programs.start(DATABASE, &command)?;
        let begun = Instant::now();
        // The socket is there a moment before anybody listens on it.
        while UnixStream::connect(&socket).is_err() {
            self.programs.check()?;
            ensure!(begun.elapsed() < START, "ovsdb-server does not listen:\n{}", self.programs.logs());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts the switch, which must not run.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start_switch(&mut self) -> anyhow::Result<()> {
        let mut command = self.command(SWITCH)?;
        command.arg(format!("unix:{}", self.socket().display()));
        self.daemon(&mut command, SWITCH);
        self.programs.start(SWITCH, &command)
    }

    fn daemon(&self, command: &mut Command, name: &str) {
        let file = |ending: &str| self.folder.path().join(format!("{name}.{ending}")).display().to_string();
        command.arg(format!("--pidfile={}", file("pid"))).arg(format!("--unixctl={}", file("ctl")));
        command.arg("--no-chdir");
    }

    /// Kills one of the two.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.programs.kill(name)
    }

    /// Ends one of the two in order.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn end(&mut self, name: &str) -> anyhow::Result<()> {
        self.programs.end(name)
    }

    /// Runs ovs-vsctl as a person would, and answers what it prints.
    ///
    /// # Errors
    /// What it says where it fails.
    pub fn vsctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let database = format!("--db=unix:{}", self.socket().display());
        let mut all = vec![database.as_str(), "--timeout=60"];
        all.extend(arguments);
        self.tool("ovs-vsctl", &all)
    }

    /// A command of Open vSwitch's with its surroundings.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn command(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.tools.path(name)?);
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.folder.path());
        }
        if let Some(libraries) = self.tools.libraries() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        Ok(command)
    }

    /// Runs one of Open vSwitch's tools and answers what it prints.
    ///
    /// # Errors
    /// What it says where it fails.
    pub fn tool(&self, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(name)?;
        command.args(arguments);
        said(&mut command)
    }

    /// Runs a command of the system inside the network namespace and answers what it prints.
    ///
    /// # Errors
    /// What it says where it fails.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.namespace.run(|| said(&mut command))?
    }

    /// All rows of the three tables that count, without what ovs-vswitchd reports by itself: two that compare equal hold the
    /// same configuration.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub fn configuration(&self) -> anyhow::Result<String> {
        let mut all = String::new();
        for (table, columns) in [
            ("Bridge", "_uuid,name,ports,external_ids,other_config,datapath_type"),
            ("Port", "_uuid,name,interfaces,tag,trunks,vlan_mode,external_ids,other_config"),
            ("Interface", "_uuid,name,type,options,external_ids,other_config,mtu_request"),
        ] {
            all += &self.vsctl(&["--format=csv", &format!("--columns={columns}"), "list", table])?;
        }
        Ok(all)
    }
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("running {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
