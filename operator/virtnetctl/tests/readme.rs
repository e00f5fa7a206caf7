//! The README's session, line by line: each command is run by one shell, and must print what the README shows.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

mod support;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use regex::Regex;
use support::{Local, Place, binary, eventually};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Where the README keeps its state.
const STATE: &str = "/tmp/virtnet";

/// A command of the README, and what it shows below it.
#[derive(Debug, Default)]
struct Line {
    command: String,
    shown: Vec<String>,
}

/// The indented block of `text` with `command` in it.
fn session(text: &str, command: &str) -> Vec<Line> {
    let blocks = text.split("\n\n").find(|block| block.contains(command)).unwrap();
    let mut lines: Vec<Line> = Vec::new();
    for line in blocks.lines().map(|line| line.strip_prefix("    ").unwrap()) {
        match (line.strip_prefix("$ "), lines.last_mut()) {
            (Some(command), _) => lines.push(Line { command: command.to_owned(), shown: Vec::new() }),
            (None, Some(last)) => last.shown.push(line.to_owned()),
            (None, None) => panic!("{line:?} stands before any command"),
        }
    }
    lines
}

/// What is the same whenever and however fast it is run: ages are one, and columns are as wide as it takes. Later versions
/// of kubectl name the namespace of what they delete.
fn plain(line: &str) -> String {
    let line = Regex::new(r"\b\d+m?\d*s\b").unwrap().replace_all(line, "AGE").into_owned();
    let line = line.replace("(x2 over AGE)", "").replace(" from default namespace", "");
    let line = Regex::new("-{4,}").unwrap().replace_all(&line, "----").into_owned();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The shell's process group, which ends with this: also what the shell was to end, when the test fails.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        // It has ended by itself when the test passes.
        let _ = Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", self.0)])
            .stderr(Stdio::null())
            .status();
    }
}

#[test]
fn each_command_of_the_readme_prints_what_it_shows() {
    let text = std::fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    let lines = session(&text, "$ virtnetctl local");
    assert!(lines.len() > 15, "{lines:?}");

    let place = Place::new();
    let state = place.state().display().to_string();
    let here = |text: &str| text.replace(STATE, &state);
    let folder = binary().parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let mut shell: Command = place.command("bash".as_ref());
    shell.current_dir(ROOT).env_remove("KUBECONFIG").env("PATH", path).args(["--norc", "-s"]);
    shell.stdin(Stdio::piped()).process_group(0);
    let mut shell = Local::start(shell);
    let _group = Group(shell.id());
    let mut input = shell.input();
    writeln!(input, "exec 2>&1").unwrap();

    for (number, Line { command, shown }) in lines.iter().enumerate() {
        let before = shell.printed().len();
        writeln!(input, "{}", here(command)).unwrap();
        if command.ends_with('&') {
            for line in shown {
                shell.wait_for_line(&here(line));
            }
            continue;
        }
        let end = format!("end of command {number}");
        writeln!(input, "echo '{end}'").unwrap();
        shell.wait_for_line(&end);
        let printed = shell.printed()[before..].replace(&end, "");
        let printed: Vec<_> = printed.lines().map(plain).filter(|line| !line.is_empty()).collect();
        let shown: Vec<_> = shown.iter().map(|line| plain(&here(line))).collect();
        assert_eq!(printed, shown, "{command}");
    }
    drop(input);
    assert!(shell.wait().success());
    eventually("the API ends", || !place.kubectl(&["get", "dpus"]).stderr.is_empty());
}
