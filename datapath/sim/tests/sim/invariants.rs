//! What holds of every simulated DPU at rest.

use std::collections::BTreeSet;

use virtnet_model::EswitchPort;
use virtnet_sim::Sim;

use crate::common::state;

pub(crate) async fn check(sim: &Sim) {
    let state = state(sim).await;
    let links = sim.links().observe().await.unwrap();
    let functions: Vec<_> = state.functions.values().collect();

    let vuids: BTreeSet<_> = functions.iter().map(|function| &function.vuid).collect();
    assert_eq!(vuids.len(), functions.len(), "VUIDs are unique");
    let prepared = state.prepared.values().filter_map(|change| change.mac);
    let macs: Vec<_> = functions.iter().map(|function| function.mac).chain(prepared).collect();
    assert_eq!(macs.iter().collect::<BTreeSet<_>>().len(), macs.len(), "MACs are unique: {macs:?}");
    let addresses: Vec<_> = functions.iter().filter_map(|function| function.bdf).collect();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "addresses are unique");

    let sfs: Vec<_> = functions.iter().filter_map(|function| function.sf.as_ref()).collect();
    let keys: BTreeSet<_> = sfs.iter().map(|sf| (sf.port, sf.number)).collect();
    assert_eq!(keys.len(), sfs.len(), "SF numbers are unique on their port");
    let rdma: BTreeSet<_> = sfs.iter().map(|sf| &sf.rdma_device).collect();
    assert_eq!(rdma.len(), sfs.len(), "RDMA devices are unique");
    for sf in &sfs {
        let link = links.get(&sf.representor).unwrap_or_else(|| panic!("{} has no netdev", sf.representor));
        assert!(link.represents(sf), "{link:?} is not {sf:?}'s");
    }
    for port in EswitchPort::ALL {
        let budget = state.limits.sfs[&port];
        assert!(budget.used + budget.foreign <= budget.total, "{port}: {budget:?}");
        let prefix = format!("pf{}sf", port.index());
        let numbers = links
            .values()
            .filter_map(|link| link.phys_port_name.as_ref()?.strip_prefix(&prefix)?.parse::<u32>().ok());
        let unused: Vec<_> = numbers
            .filter(|number| !keys.iter().any(|(on, sf)| *on == port && u32::from(sf.get()) == *number))
            .collect();
        let ours = unused.iter().filter(|number| (1000..3000).contains(*number)).count();
        assert!(
            ours <= usize::try_from(budget.foreign).unwrap(),
            "representors without a function, outside the pool: {unused:?}"
        );
        let present = unused.len() + keys.iter().filter(|(on, _)| *on == port).count();
        assert!(present <= usize::try_from(budget.total).unwrap(), "more SFs than PF_TOTAL_SF");
    }
    for function in &functions {
        assert!(!function.driver.in_use || (function.sf.is_some() && function.bdf.is_some()), "{function:?}");
        assert!(function.max_queues < function.num_msix, "{function:?}");
    }
}
