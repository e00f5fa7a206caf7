//! The bundle's README: what is in it, and what is not and why. Pure.

use k8s_openapi::jiff::Timestamp;

/// What is told of the bundle's parts.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    has: Vec<(String, String)>,
    lacks: Vec<(String, String)>,
    not_asked: Vec<(String, String)>,
}

impl Contents {
    /// This part is in it.
    pub(crate) fn has(&mut self, path: &str, holds: &str) {
        self.has.push((path.to_owned(), holds.to_owned()));
    }

    /// This one could not be had.
    pub(crate) fn lacks(&mut self, path: &str, why: &str) {
        self.lacks.push((path.to_owned(), why.to_owned()));
    }

    /// This one was not asked for, or can't be.
    pub(crate) fn not_asked(&mut self, path: &str, how: &str) {
        self.not_asked.push((path.to_owned(), how.to_owned()));
    }

    /// How many could not be had.
    pub(crate) fn lacking(&self) -> usize {
        self.lacks.len()
    }

    /// The text.
    pub(crate) fn readme(&self, about: &str, now: Timestamp) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut text =
            format!("A support bundle of virtnet, made by virtnetctl {version} at {now}.\nAbout: {about}.\n");
        let lists =
            [("In it", &self.has), ("Could not be had", &self.lacks), ("Not asked for", &self.not_asked)];
        for (title, parts) in lists.iter().filter(|(_, parts)| !parts.is_empty()) {
            text.push_str(&format!("\n{title}:\n"));
            for (path, told) in *parts {
                text.push_str(&format!("  {path}: {told}\n"));
            }
        }
        text.push_str(
            "\nNever in it: Secrets, tokens, kubeconfigs, and of objects who manages which field and what kubectl last applied. Of \
             ports of others, and of keys of others on ours, no values: a device whose representor has one for a port tells \
             of its name, its bridge and up to four of its keys, as do the Events about it. Specs, labels and annotations are \
             as people wrote them.\n",
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_told_with_its_reason() {
        let mut contents = Contents::default();
        contents.has("dpus.yaml", "1 object");
        contents.lacks("leases.yaml", "listing leases: forbidden");
        contents.not_asked("agent/", "by --agent");
        let text = contents.readme("all DPUs", Timestamp::UNIX_EPOCH);
        let lists = "About: all DPUs.\n\nIn it:\n  dpus.yaml: 1 object\n\nCould not be had:\n  leases.yaml: listing leases: \
                     forbidden\n\nNot asked for:\n  agent/: by --agent\n\nNever in it: Secrets";
        assert!(text.contains("at 1970-01-01T00:00:00Z") && text.contains(lists), "{text}");
        assert_eq!(contents.lacking(), 1);
    }
}
