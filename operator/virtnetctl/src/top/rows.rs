//! The figures of a DPU and their totals, and how people see them: pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde::Serialize;
use virtnet_crds::conditions::READY;
use virtnet_crds::{Dpu, Port, VirtnetDevice};
use virtnet_embedded_api::human_duration;

use crate::lease::Agent;
use crate::ready;

/// How much of something is in use, and how much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Use {
    used: u32,
    all: u32,
}

impl Use {
    fn add(self, other: Self) -> Self {
        Self { used: self.used.saturating_add(other.used), all: self.all.saturating_add(other.all) }
    }

    fn shown(self) -> String {
        format!("{}/{}", self.used, self.all)
    }
}

fn shown(agent: Agent) -> String {
    match agent {
        Agent::Alive => "alive".to_owned(),
        Agent::Silent { seconds } => format!("silent {}", human_duration(seconds)),
        Agent::None => "none".to_owned(),
        Agent::Unknown => "?".to_owned(),
    }
}

/// What is counted of one DPU, and of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    hotplug_slots: Use,
    sfs: BTreeMap<Port, Use>,
    vfs: Use,
    /// MSI-X vectors that all functions together have.
    msix: u32,
    /// Devices bound to it.
    devices: usize,
    ready: usize,
    not_ready: usize,
    /// Functions that no object declares.
    undeclared: usize,
}

/// One DPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    name: String,
    ready: String,
    reason: String,
    agent: Agent,
    /// MSI-X vectors that one function may have.
    msix_per_function: u32,
    /// VFs by the index of their PF.
    vfs_per_pf: BTreeMap<u16, Use>,
    #[serde(flatten)]
    figures: Figures,
}

impl Row {
    /// The figures of a DPU with these devices.
    pub(crate) fn of<'a>(
        dpu: &Dpu,
        bound: impl IntoIterator<Item = &'a VirtnetDevice>,
        agent: Agent,
    ) -> Self {
        let status = dpu.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.type_ == READY);
        let (capacity, allocated) =
            (status.capacity.unwrap_or_default(), status.allocated.unwrap_or_default());
        let sfs_in_use = |port| allocated.sfs.iter().find(|sfs| sfs.port == port).map_or(0, |sfs| sfs.count);
        let vfs_in_use = |pf| allocated.vfs.iter().find(|vfs| vfs.pf == pf).map_or(0, |vfs| vfs.count);
        let sfs = capacity.sfs.iter();
        let sfs = sfs.map(|sfs| (sfs.port, Use { used: sfs_in_use(sfs.port), all: sfs.count }));
        let vfs = capacity.vfs.iter();
        let vfs = vfs.map(|vfs| (vfs.pf, Use { used: vfs_in_use(vfs.pf), all: vfs.count }));
        let vfs_per_pf: BTreeMap<_, _> = vfs.collect();
        let (mut devices, mut not_ready) = (0, 0);
        for device in bound {
            devices += 1;
            not_ready += usize::from(ready::why_not(device).is_some());
        }
        Self {
            name: dpu.name_any(),
            ready: ready.map_or_else(|| "Unknown".to_owned(), |condition| condition.status.clone()),
            reason: ready.map(|condition| condition.reason.clone()).unwrap_or_default(),
            agent,
            msix_per_function: capacity.msix,
            figures: Figures {
                hotplug_slots: Use { used: allocated.hotplug_slots, all: capacity.hotplug_slots },
                sfs: sfs.collect(),
                vfs: vfs_per_pf.values().fold(Use::default(), |sum, vfs| sum.add(*vfs)),
                msix: allocated.msix,
                devices,
                ready: devices - not_ready,
                not_ready,
                undeclared: status.undeclared.len(),
            },
            vfs_per_pf,
        }
    }
}

/// All DPUs together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Total {
    dpus: usize,
    /// Those whose agent lives.
    alive: usize,
    #[serde(flatten)]
    figures: Figures,
}

impl Total {
    /// That of these.
    pub(crate) fn of(rows: &[Row]) -> Self {
        let alive = rows.iter().filter(|row| row.agent == Agent::Alive).count();
        let mut total = Self { dpus: rows.len(), alive, ..Self::default() };
        for row in rows {
            let Figures { hotplug_slots, sfs, vfs, msix, devices, ready, not_ready, undeclared } =
                &row.figures;
            let sum = &mut total.figures;
            sum.hotplug_slots = sum.hotplug_slots.add(*hotplug_slots);
            for (port, sfs) in sfs {
                let of_port = sum.sfs.entry(*port).or_default();
                *of_port = of_port.add(*sfs);
            }
            sum.vfs = sum.vfs.add(*vfs);
            sum.msix = sum.msix.saturating_add(*msix);
            sum.devices += devices;
            sum.ready += ready;
            sum.not_ready += not_ready;
            sum.undeclared += undeclared;
        }
        total
    }
}

const HEAD: [&str; 13] = [
    "DPU",
    "REASON",
    "AGENT",
    "SLOTS",
    "SFS-P0",
    "SFS-P1",
    "VFS",
    "VFS-BY-PF",
    "MSIX",
    "DEVICES",
    "READY",
    "NOT-READY",
    "UNDECLARED",
];

/// The rows that people see: one for each DPU and, below several, their total.
pub(crate) fn table(rows: &[Row]) -> Vec<Vec<String>> {
    let mut table = vec![HEAD.map(str::to_owned).to_vec()];
    for row in rows {
        let Row { name, ready: _, reason, agent, msix_per_function: _, vfs_per_pf, figures } = row;
        let first = [name.clone(), reason.clone(), shown(*agent)];
        table.push(line(&first, by_pf(vfs_per_pf), figures));
    }
    if rows.len() > 1 {
        let Total { dpus, alive, figures } = Total::of(rows);
        let first = ["TOTAL".to_owned(), String::new(), format!("{alive}/{dpus} alive")];
        table.push(line(&first, String::new(), &figures));
    }
    table
}

/// In use on each PF, from the first on: `3,0,0,0`.
fn by_pf(vfs: &BTreeMap<u16, Use>) -> String {
    vfs.values().map(|vfs| vfs.used.to_string()).collect::<Vec<_>>().join(",")
}

fn line(first: &[String; 3], by_pf: String, figures: &Figures) -> Vec<String> {
    let Figures { hotplug_slots, sfs, vfs, msix, devices, ready, not_ready, undeclared } = figures;
    let sfs = |port| sfs.get(&port).map(|sfs: &Use| sfs.shown()).unwrap_or_default();
    let mut line = first.to_vec();
    line.extend([hotplug_slots.shown(), sfs(Port::P0), sfs(Port::P1), vfs.shown(), by_pf]);
    line.extend([msix.to_string()]);
    line.extend([devices, ready, not_ready, undeclared].map(ToString::to_string));
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dpu(name: &str, slots: u32, vfs: [u32; 2]) -> Dpu {
        serde_json::from_value(json!({
            "apiVersion": virtnet_crds::API_VERSION, "kind": "Dpu", "metadata": {"name": name}, "spec": {},
            "status": {
                "observedGeneration": 1,
                "capacity": {
                    "hotplugSlots": 16, "sfs": [{"port": "p0", "count": 508}], "msix": 64,
                    "vfs": [{"pf": 0, "count": 126}, {"pf": 1, "count": 126}],
                },
                "allocated": {
                    "hotplugSlots": slots, "sfs": [{"port": "p0", "count": slots}], "msix": 4 * slots,
                    "vfs": [{"pf": 0, "count": vfs[0]}, {"pf": 1, "count": vfs[1]}],
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_total_is_that_of_all_and_of_one_there_is_none() {
        let rows = [("a", 3, [5, 0]), ("b", 1, [0, 7])]
            .map(|(name, slots, vfs)| Row::of(&dpu(name, slots, vfs), [], Agent::Alive));
        let table = table(&rows);
        assert_eq!(table[1][3..9], ["3/16", "3/508", "", "5/252", "5,0", "12"]);
        assert_eq!(table[3][..3], ["TOTAL", "", "2/2 alive"]);
        assert_eq!(table[3][3..9], ["4/32", "4/1016", "", "12/504", "", "16"]);
        assert_eq!(super::table(&rows[..1]).len(), 2);
        assert!(table.iter().all(|row| row.len() == HEAD.len()));
    }
}
