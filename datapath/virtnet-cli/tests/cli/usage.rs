//! What needs no controller: wrong usage, help, completion, and a service that is not there.

use std::path::Path;

use tempfile::TempDir;

use crate::world::{Run, command, virtnet};

/// Nobody listens here, so that whoever asks before the words were checked fails in another way.
const NOWHERE: &str = "/nonexistent/virtnetd.sock";

const ADVICE: &str =
    "virtnetd is not running (systemctl status virtnetd), or listens elsewhere (--socket, VIRTNETD_SOCKET)";

#[test]
fn a_service_that_is_not_there_is_told_with_its_socket() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("none.sock");
    let line = |why: &str| format!("observe: connect to {}: {why}: {ADVICE}", socket.display());
    virtnet(&socket, "list").failed(&line("No such file or directory (os error 2)"));
    let by_environment = command().env("VIRTNETD_SOCKET", &socket).arg("list").output().unwrap();
    Run::of(by_environment).failed(&line("No such file or directory (os error 2)"));
    // As after a service that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    virtnet(&socket, "list").failed(&line("Connection refused (os error 111)"));
}

#[test]
fn the_socket_is_virtnetds_unless_another_is_named() {
    let help = Run::of(command().arg("--help").output().unwrap()).ok();
    assert!(help.contains("[default: /run/virtnetd/virtnetd.sock]"), "{help}");
}

#[test]
fn wrong_usage_is_told_before_anything_is_asked() {
    let hotplug = |words: &str| format!("hotplug -i mlx5_0 -t 1500 -n 3 -s 1024 {words}");
    let device = |words: &str| format!("modify -p 0 device {words}");
    let no_mac = |mac: &str| format!("{mac:?} is not a unicast MAC address such as 0c:c4:7a:ff:22:93");
    let cases = [
        // The MAC: its length, its digits, its kind.
        (hotplug("-m 0C:C4:7A:FF:22"), no_mac("0C:C4:7A:FF:22")),
        (hotplug("-m 0C:C4:7A:FF:22:9G"), no_mac("0C:C4:7A:FF:22:9G")),
        (hotplug("-m 01:00:5E:00:00:01"), no_mac("01:00:5E:00:00:01")),
        (device("-m 00:00:00:00:00:00"), no_mac("00:00:00:00:00:00")),
        // Other settings.
        (device("-t 67"), "\"67\" is not an MTU from 68 to 9978".to_owned()),
        (device("-q 1000"), "\"1000\" is not a power of two from 2 to 32768".to_owned()),
        (device("-f 0x100000000000"), "bit 44 is no feature of virtio-net".to_owned()),
        (device("-f 0x0"), "0x0 means the controller's default at hot-plug only".to_owned()),
        (hotplug("-m 0C:C4:7A:FF:22:93 -f 19"), "\"19\" is not 64 bits in hexadecimal".to_owned()),
        (hotplug("-m 0C:C4:7A:FF:22:93 -u 70000"), "\"70000\" is not an SF number".to_owned()),
        // What must be there, and what not together.
        (hotplug(""), "--mac <MAC>".to_owned()),
        (device(""), "<--mac <MAC>|--mtu <MTU>|".to_owned()),
        ("modify device -t 9000".to_owned(), "<--pf <PF>|--vuid <VUID>>".to_owned()),
        ("modify -p 0".to_owned(), "requires a subcommand".to_owned()),
        ("modify -p 0 -u VNETS1D0F0 device -t 9000".to_owned(), "cannot be used with".to_owned()),
        ("unplug".to_owned(), "<--pf <PF>|--vuid <VUID>>".to_owned()),
        ("unplug -p 4 -u VNETS1D0F0".to_owned(), "cannot be used with".to_owned()),
        ("unplug -p 0 -v 0".to_owned(), "unexpected argument '-v'".to_owned()),
        ("query".to_owned(), "<--all|--pf <PF>|--vuid <VUID>>".to_owned()),
        ("query -a -p 0".to_owned(), "cannot be used with".to_owned()),
        ("query -a -v 0".to_owned(), "cannot be used with".to_owned()),
        ("query -u VNETS0D0F0VF1 -v 0".to_owned(), "cannot be used with".to_owned()),
        ("query -v 0".to_owned(), "<--all|--pf <PF>|--vuid <VUID>>".to_owned()),
        ("query -a -q 0".to_owned(), "cannot be used with".to_owned()),
        ("query -p 0 -b -q 0".to_owned(), "cannot be used with".to_owned()),
        ("modify -p 0 queue -n 1 -c 1".to_owned(), "--period_mode <PERIOD_MODE>".to_owned()),
        ("modify -p 0 queue -e event -n 65536 -c 1".to_owned(), "65536".to_owned()),
        ("stats".to_owned(), "<--pf <PF>|--vuid <VUID>>".to_owned()),
        ("health -a -p 0".to_owned(), "cannot be used with".to_owned()),
        ("log -l warn".to_owned(), "[possible values: info, err, debug]".to_owned()),
        ("log".to_owned(), "--level <LEVEL>".to_owned()),
        ("replug".to_owned(), "unrecognized subcommand".to_owned()),
    ];
    for (words, saying) in &cases {
        virtnet(Path::new(NOWHERE), words).misused(saying);
    }
}

#[test]
fn the_program_tells_its_own_version() {
    let version = format!("virtnet {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(virtnet(Path::new(NOWHERE), "-v").ok(), version);
    assert_eq!(virtnet(Path::new(NOWHERE), "--version").ok(), version);
}

#[test]
fn the_help_of_each_command_ends_with_examples() {
    for words in [
        "hotplug",
        "unplug",
        "list",
        "query",
        "modify",
        "modify -p 0 device",
        "modify -p 0 queue",
        "log",
        "version",
        "update",
        "restart",
        "validate",
        "health",
        "debug",
        "stats",
    ] {
        let help = virtnet(Path::new(NOWHERE), &format!("{words} -h")).ok();
        let name = words.split(' ').next().unwrap();
        assert!(help.contains(&format!("Examples:\n  virtnet {name}")), "{help}");
    }
}

#[test]
fn shells_complete_the_words() {
    let registers =
        [("bash", "complete -F _virtnet"), ("zsh", "#compdef virtnet"), ("fish", "complete -c virtnet")];
    for (shell, registers) in registers {
        let script = virtnet(Path::new(NOWHERE), &format!("completion {shell}")).ok();
        assert!(script.contains(registers), "{shell}: {script}");
        for word in ["hotplug", "ib_device", "max_queue_size"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}
