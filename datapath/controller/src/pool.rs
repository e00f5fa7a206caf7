//! SF numbers, budgets and the pool of SFs without a function. Pure.

use std::collections::BTreeSet;

use virtnet_model::{EswitchPort, SfNumber, Uplink};

use crate::table::Table;
use crate::{Place, SfKey};

/// The least number that the controller uses; those below are other applications' (the guide, section 1.1).
pub(crate) const FIRST_STATIC: u16 = 1000;
const FIRST_HOTPLUG: u16 = 2000;
/// The least number of a VF's SF. An SF from here on that lost its function goes to the pool.
pub(crate) const FIRST_VF: u16 = 3000;

/// How a function comes by its SF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The uplink to make it on.
    pub(crate) uplink: Uplink,
    /// Which it is.
    pub(crate) sf: SfKey,
    /// It exists already, in the pool.
    pub(crate) pooled: bool,
    /// A pooled SF that must go first, since the port holds no more.
    pub(crate) evict: Option<SfKey>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSf {
    /// PF_TOTAL_SF is spent.
    Exhausted,
    /// The wanted number is another's.
    NumberInUse,
}

impl Table {
    /// SFs of ours that no function has, lowest first.
    pub(crate) fn unattached(&self) -> impl Iterator<Item = SfKey> {
        let attached: BTreeSet<SfKey> = self.configured().filter_map(|(_, _, sf)| sf).collect();
        self.sfs.iter().filter(move |(key, sf)| !sf.foreign && !attached.contains(key)).map(|(key, _)| *key)
    }

    /// The pool of a port, lowest first.
    fn pooled(&self, port: EswitchPort) -> Vec<SfKey> {
        self.unattached().filter(|key| key.port == port && key.number.get() >= FIRST_VF).collect()
    }

    /// How many the pool of the static uplink holds.
    pub(crate) fn pool_size(&self) -> u32 {
        u32::try_from(self.pooled(self.bounds.limits.static_uplink.port()).len()).unwrap_or(u32::MAX)
    }

    /// What is to be said where other SFs leave no room for the pool that is wanted at start (the guide, section 1.1.1). SFs that
    /// VFs have are of it.
    pub(crate) fn pool_short(&self) -> Option<String> {
        let port = self.bounds.limits.static_uplink.port();
        let [vfs, ..] = self.users_of(port);
        let (made, wanted) = (self.pool_size(), self.pool_wanted);
        (self.bounds.limits.emulation && made + vfs < wanted).then(|| {
            let percent = self.config.sf_pool.percent;
            let spent = self.sfs_spent(port);
            format!("sf_pool_percent={percent} wants {wanted} SFs in the pool, and {made} could be made: {spent}, or lower sf_pool_percent")
        })
    }

    /// Chooses the SF for a function to be at `place`: the wanted number, or one from the pool for a VF, or the lowest
    /// free number of the function's kind.
    pub(crate) fn grant(
        &self,
        place: Place,
        uplink: Uplink,
        wanted: Option<SfNumber>,
    ) -> Result<Grant, NoSf> {
        let port = uplink.port();
        let pooled = self.pooled(port);
        let number = match (wanted, place) {
            (Some(number), _) => number,
            (None, Place::Vf(..)) if !pooled.is_empty() => pooled[0].number,
            (None, Place::Static(_)) => self.lowest_free(port, FIRST_STATIC).ok_or(NoSf::Exhausted)?,
            (None, Place::Slot(_)) => self.lowest_free(port, FIRST_HOTPLUG).ok_or(NoSf::Exhausted)?,
            (None, Place::Vf(..)) => self.lowest_free(port, FIRST_VF).ok_or(NoSf::Exhausted)?,
        };
        let sf = SfKey { port, number };
        let reused = pooled.contains(&sf);
        if number.get() < FIRST_STATIC || (self.sfs.contains_key(&sf) && !reused) {
            return Err(NoSf::NumberInUse);
        }
        if self.budget(port).free() == 0 {
            return Err(NoSf::Exhausted);
        }
        let evict = if reused { None } else { self.eviction(port, &pooled) };
        Ok(Grant { uplink, sf, pooled: reused, evict })
    }

    /// The pooled SF to give up before another can be made.
    fn eviction(&self, port: EswitchPort, pooled: &[SfKey]) -> Option<SfKey> {
        let total = self.bounds.limits.sfs.get(&port).map_or(0, |budget| budget.total);
        let present = self.sfs.keys().filter(|key| key.port == port).count();
        (present >= usize::try_from(total).unwrap_or(usize::MAX)).then(|| pooled.last().copied()).flatten()
    }

    pub(crate) fn lowest_free(&self, port: EswitchPort, first: u16) -> Option<SfNumber> {
        (first..=SfNumber::MAX.get())
            .filter_map(|number| SfNumber::try_from(u32::from(number)).ok())
            .find(|number| !self.sfs.contains_key(&SfKey { port, number: *number }))
    }

    /// What a refusal says where PF_TOTAL_SF is spent.
    pub(crate) fn sfs_spent(&self, port: EswitchPort) -> String {
        let [vfs, statics, hotplugged] = self.users_of(port);
        let budget = self.budget(port);
        format!(
            "PF_TOTAL_SF={} of {port} is spent ({vfs} VFs, {statics} static PFs, {hotplugged} hot-plugged, {} of \
             other applications): raise it with mlxconfig and cold boot",
            budget.total, budget.foreign
        )
    }
}
