//! `make bench-switch`: the same 504 ports by the guide's own commands, by one bare transaction, and by the agent's hands,
//! interleaved; medians, and the ratios that the project promises.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use futures::StreamExt;
use futures::stream::iter;
use serde_json::{Value, json};
use virtnet_local_switch::OpenVSwitch;
use virtnet_model::{
    EswitchPort, LinkChange, Links, Netdevs, Owner, PortSettings, SfNumber, SubFunction, Switch, SwitchChange,
};
use virtnet_netlink::{NetlinkLinks, Representors, Taps};
use virtnet_ovsdb::OvsSwitch;
use virtnet_tests::open_vswitch;

/// How often each way is measured, and on how many ports.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each way is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many ports
    #[arg(long, default_value_t = 504)]
    ports: u32,
}

const BRIDGE: &str = "ovsbr1";

struct Bench {
    ovs: OpenVSwitch,
    sfs: Vec<SubFunction>,
    switch: OvsSwitch,
    links: NetlinkLinks,
    _taps: Arc<Taps>,
}

/// The medians of one way, of its two parts.
struct Taken {
    links: Duration,
    switch: Duration,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { rounds, ports } = Arguments::parse();
    let ovs = open_vswitch::start()?;
    let taps = Arc::new(Taps::new(Some(ovs.namespace())));
    let number = |index: u32| {
        SfNumber::try_from(3000 + index).map(|sf| SubFunction::named(EswitchPort::P0, sf, "mlx5_0"))
    };
    let sfs = (0..ports).map(number).collect::<Result<Vec<_>, _>>()?;
    for sf in &sfs {
        taps.appear(&sf.representor).with_context(|| format!("making {}", sf.representor))?;
    }
    let links = ovs.namespace().run(|| NetlinkLinks::open(Representors::Taps))??;
    let switch = OvsSwitch::connect(ovs.address());
    let bench = Bench { ovs, sfs, switch, links, _taps: taps };
    let (mut commands, mut bare, mut agent) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        commands.push(bench.by_commands()?);
        bench.clear().await?;
        bare.push(bench.by_a_bare_transaction().await?);
        bench.clear().await?;
        agent.push(bench.by_the_agent().await?);
        bench.clear().await?;
        eprintln_line(&format!("round {round} of {rounds}"));
    }
    let (commands, bare, agent) = (median(&commands), median(&bare), median(&agent));
    let row = |way: &str, taken: &Taken| {
        let total = taken.links + taken.switch;
        let ratio = |whole: Duration, part: Duration| whole.as_secs_f64() / part.as_secs_f64();
        println_line(&format!(
            "| {way} | {:.3} s | {:.3} s | {:.3} s | {:.1} | {:.2} |",
            taken.links.as_secs_f64(),
            taken.switch.as_secs_f64(),
            total.as_secs_f64(),
            ratio(commands.links + commands.switch, total),
            ratio(taken.switch, bare.switch),
        ));
    };
    println_line(&format!("{ports} ports, medians of {rounds} rounds, interleaved\n"));
    println_line(
        "| way | representors up | Open vSwitch | both | times faster than the commands | Open vSwitch: times the bare transaction |",
    );
    println_line("|---|---|---|---|---|---|");
    row("the guide's commands, one at a time", &commands);
    row("one bare transaction", &bare);
    row("the agent's hands", &agent);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn println_line(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "progress, beside the table")]
fn eprintln_line(text: &str) {
    eprintln!("{text}");
}

fn median(all: &[Taken]) -> Taken {
    let of = |part: fn(&Taken) -> Duration| {
        let mut sorted: Vec<_> = all.iter().map(part).collect();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    };
    Taken { links: of(|taken| taken.links), switch: of(|taken| taken.switch) }
}

impl Bench {
    /// As the guide does it, for each port.
    fn by_commands(&self) -> anyhow::Result<Taken> {
        let mut add = self.ovs.command("ovs-vsctl")?;
        add.arg(format!("--db={}", self.ovs.address()));
        let (program, environment) = (
            add.get_program().to_owned(),
            add.get_envs()
                .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
                .collect::<Vec<_>>(),
        );
        let database: Vec<_> = add.get_args().map(std::ffi::OsStr::to_owned).collect();
        let (mut links, mut switch) = (Duration::ZERO, Duration::ZERO);
        let run = || -> anyhow::Result<()> {
            for sf in &self.sfs {
                let name = sf.representor.as_str();
                let begun = Instant::now();
                let up = Command::new("ip").args(["link", "set", name, "up"]).status()?;
                links += begun.elapsed();
                let begun = Instant::now();
                let added = Command::new(&program)
                    .args(&database)
                    .args(["add-port", BRIDGE, name])
                    .envs(environment.iter().map(|(name, value)| (name, value)))
                    .status()?;
                switch += begun.elapsed();
                ensure!(up.success() && added.success(), "adding {name}");
            }
            Ok(())
        };
        self.ovs.namespace().run(run)??;
        Ok(Taken { links, switch })
    }

    /// One transaction as short as it can be, and the wait until ovs-vswitchd has acted on it; nothing is watched or guarded.
    async fn by_a_bare_transaction(&self) -> anyhow::Result<Taken> {
        let links = self.set_links().await?;
        let socket = UnixStream::connect(self.ovs.socket()).context("connecting")?;
        let mut messages =
            serde_json::Deserializer::from_reader(BufReader::new(socket.try_clone()?)).into_iter::<Value>();
        let send = |message: Value| (&socket).write_all(message.to_string().as_bytes());
        let mut operations = vec![json!("Open_vSwitch")];
        let mut ports = Vec::new();
        for (index, sf) in self.sfs.iter().enumerate() {
            let (name, port, interface) = (sf.representor.as_str(), format!("p{index}"), format!("i{index}"));
            let ids: Vec<_> = self.settings().marked_external_ids().into_iter().collect();
            operations.push(json!({"op": "insert", "table": "Interface", "uuid-name": interface,
                "row": {"name": name, "external_ids": ["map", ids]}}));
            operations.push(json!({"op": "insert", "table": "Port", "uuid-name": port,
                "row": {"name": name, "interfaces": ["named-uuid", interface]}}));
            ports.push(json!(["named-uuid", port]));
        }
        operations.push(json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", BRIDGE]],
            "mutations": [["ports", "insert", ["set", ports]]]}));
        operations.push(json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}));
        operations
            .push(json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}));
        let watched = json!({"Open_vSwitch": {"columns": ["cur_cfg"]}});
        send(json!({"id": 1, "method": "monitor", "params": ["Open_vSwitch", null, watched]}))?;
        messages.next().context("no answer to the monitor")??;
        let begun = Instant::now();
        send(json!({"id": 2, "method": "transact", "params": operations}))?;
        let (mut wanted, mut current) = (None, 0);
        while wanted.is_none_or(|wanted| current < wanted) {
            let message = messages.next().context("the server closed the connection")??;
            if message["method"] == "update" {
                let rows = message["params"][1]["Open_vSwitch"].as_object().context("no rows")?;
                current =
                    rows.values().filter_map(|row| row["new"]["cur_cfg"].as_i64()).max().unwrap_or(current);
            } else if message["id"] == 2 {
                let results = message["result"].as_array().context("no results")?;
                wanted = results.last().and_then(|last| last["rows"][0]["next_cfg"].as_i64());
                ensure!(
                    wanted.is_some(),
                    "the transaction failed: {}",
                    results.last().unwrap_or(&Value::Null)
                );
            }
        }
        Ok(Taken { links, switch: begun.elapsed() })
    }

    /// As the agent does it.
    async fn by_the_agent(&self) -> anyhow::Result<Taken> {
        // It has watched the database since long before.
        let state = self.switch.observe().await?;
        ensure!(state.bridges.len() == 2, "the switch is not known yet");
        let links = self.set_links().await?;
        let settings = self.settings();
        let changes: Vec<_> = self
            .sfs
            .iter()
            .map(|sf| SwitchChange::SetPort { name: sf.representor.clone(), settings: settings.clone() })
            .collect();
        let begun = Instant::now();
        let results = self.switch.apply(&changes).await?;
        let switch = begun.elapsed();
        for result in results {
            result?;
        }
        Ok(Taken { links, switch })
    }

    fn settings(&self) -> PortSettings {
        PortSettings {
            bridge: BRIDGE.parse().unwrap_or_else(|_| unreachable!("a short name")),
            interface_type: String::new(),
            tag: None,
            trunks: Default::default(),
            external_ids: Default::default(),
            owner: Owner { dpu: "dpu-0".into(), device: "default/web".into(), uid: "uid".into() },
        }
    }

    async fn set_links(&self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let up = LinkChange { up: Some(true), mtu: None };
        let results: Vec<_> =
            iter(&self.sfs).map(|sf| self.links.set(sf, up)).buffer_unordered(16).collect().await;
        for result in results {
            result?;
        }
        Ok(begun.elapsed())
    }

    /// Takes all ports away again, and the representors down.
    async fn clear(&self) -> anyhow::Result<()> {
        let mut delete = vec![];
        for sf in &self.sfs {
            delete.extend(["--", "--if-exists", "del-port", sf.representor.as_str()]);
        }
        self.ovs.vsctl(&delete[1..])?;
        let down = LinkChange { up: Some(false), mtu: None };
        for sf in &self.sfs {
            self.links.set(sf, down).await?;
        }
        while self.switch.observe().await?.ports.len() > 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
