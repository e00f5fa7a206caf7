//! The page of `docs/` that keeps step with the command line: what each command says of itself. `UPDATE_GOLDEN=1` writes it anew.

#![expect(clippy::unwrap_used, reason = "what can't be run or written fails the test")]

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

const BEGINNING: &str = "\
# The command line `virtnet`

<!-- Generated: `make generate` writes it. Change datapath/virtnet-cli/src instead. -->

`virtnet` asks the controller service `virtnetd` on its socket: see [controller.md](controller.md). An answer is one JSON document on
standard output; of `completion` it is a script. The command exits with 0 where it is done, with 1 where it was refused or failed, with
the reason in one line on standard error, and with 2 where it was used wrongly, before anything was asked.

Below is what each command says with `--help`. On a BlueField the vendor has a command of the same name, which speaks to the vendor's
service and not to this one.
";

/// What a command says of itself.
fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_virtnet"))
        .args(command)
        .arg("--help")
        .env_remove("COLUMNS")
        .env_remove("VIRTNETD_SOCKET")
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands below one, as its help lists them: a name and what it does a line.
fn below(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

/// The part of a command and of those below it.
fn describe(page: &mut String, command: &[&str]) {
    let help = help(command);
    let name = ["virtnet"].iter().chain(command).copied().collect::<Vec<_>>().join(" ");
    write!(page, "\n## {name}\n\n").unwrap();
    for line in help.trim_end().lines() {
        let line = format!("    {line}");
        writeln!(page, "{}", line.trim_end()).unwrap();
    }
    for name in below(&help) {
        describe(page, &[command, &[name]].concat());
    }
}

#[test]
fn the_committed_page_is_what_the_commands_say() {
    let mut text = BEGINNING.to_owned();
    describe(&mut text, &[]);
    assert!(text.contains("\n## virtnet modify device\n"), "a command below a command is shown too");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/virtnet.md");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&page, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&page).unwrap_or_default() == text,
        "docs/virtnet.md is out of date; run: make generate"
    );
}
