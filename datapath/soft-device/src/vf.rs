//! VFs: what is behind them listens from the start, for QEMU wants it before any guest makes one. In the table a VF is for as long as its
//! guest has it, presenting what QEMU was started with.

use std::sync::Arc;

use virtnet_controller::{Emulated, Emulation, Place, Settings};
use virtnet_model::{Features, Mtu, PartError, QueueSize, Refusal};
use virtnet_qemu_host::Seen;
use virtnet_soft::{Carries, Function, FunctionError, Socket, supported};

use crate::config::SoftConfig;
use crate::device::Shared;
use crate::links;
use crate::profile::{MAX_VIRTQ, max_queue_size};
use crate::table::{Held, see_bus, see_driver};

/// What a back end offers that does not know yet what QEMU is told: all that it can.
fn widest(config: &SoftConfig, carries: Carries) -> Settings {
    Settings {
        mac: config.mac,
        mtu: Mtu::MAX,
        max_queues: queues_for(config.msix),
        queue_size: max_queue_size(),
        num_msix: config.msix,
        features: supported(carries),
        transitional: false,
    }
}

/// Virtqueues of a function with so many vectors, as the controller counts them.
fn queues_for(num_msix: u16) -> u16 {
    num_msix.saturating_sub(1).clamp(1, MAX_VIRTQ)
}

/// What a VF presents, as QEMU tells; `None` where it does not, as of one that is just going.
fn presented(seen: &Seen, carries: Carries) -> Option<Settings> {
    let supported = supported(carries);
    let offered = seen.features.as_ref()?.iter().filter(|feature| supported.contains(*feature));
    let num_msix = seen.vectors?;
    Some(Settings {
        mac: seen.mac?,
        mtu: seen.mtu.unwrap_or(Mtu::DEFAULT),
        max_queues: queues_for(num_msix),
        queue_size: QueueSize::try_from(u32::from(seen.queue_size?)).ok()?,
        num_msix,
        features: offered.collect::<Features>(),
        transitional: seen.transitional?,
    })
}

impl Shared {
    /// Opens what is behind a VF that some guest may make.
    pub(crate) fn open_vf(self: &Arc<Self>, place: Place) -> Result<(), FunctionError> {
        let settings = widest(&self.config, self.carries);
        let socket = Socket::Serve(self.socket(place));
        let function = Function::open(&self.workers, None, &settings, self.carries, socket)?;
        let back_end = self.back_end(place, function);
        self.table().set_back_end(place, Some(back_end));
        Ok(())
    }

    /// Has the table say of a VF what its bus now does. Its SF is free only once no packet of it goes by the representor any more.
    pub(crate) async fn look_at_vf(self: &Arc<Self>, place: Place) {
        let Some(bus) = self.bus(place) else { return };
        let _right = self.change(place).await;
        let seen = bus.state().borrow().functions.get(&place).cloned();
        let settings = seen.as_ref().and_then(|seen| presented(seen, self.carries));
        let held = {
            let table = self.table();
            table
                .function(place)
                .map(|held| held.emulated.emulation.clone().map(|emulation| emulation.settings))
        };
        match (held, seen, settings) {
            (None, Some(seen), Some(settings)) => self.comes(place, &seen, settings),
            (Some(_), None, _) => self.goes(place).await,
            // Its QEMU was started anew, with other arguments.
            (Some(held), Some(seen), Some(settings)) if held.as_ref() != Some(&settings) => {
                self.goes(place).await;
                self.comes(place, &seen, settings);
            }
            (Some(_), Some(seen), _) => self.table().edit(place, |emulated| see_bus(emulated, Some(&seen))),
            (None, Some(seen), None) => {
                tracing::warn!(%place, ?seen, "QEMU does not tell what this VF presents");
            }
            (None, None, _) => {}
        }
    }

    fn comes(self: &Arc<Self>, place: Place, seen: &Seen, settings: Settings) {
        let mut emulated = Emulated {
            emulation: Some(Emulation { settings, sf: None }),
            socket: Some(self.socket(place)),
            ..Emulated::default()
        };
        see_bus(&mut emulated, Some(seen));
        let mut table = self.table();
        if let Some(function) = table.back_end(place) {
            see_driver(&mut emulated, &function.watch().borrow(), true, false);
        }
        table.add(place, Held { emulated, ..Held::default() });
        drop(table);
        // QEMU has made it with a link.
        links::set(self, place);
    }

    async fn goes(&self, place: Place) {
        let function = self.table().back_end(place).map(Arc::clone);
        if let Some(function) = function
            && let Err(error) = function.set_tap(None).await
        {
            tracing::error!(%place, error = &error as &dyn std::error::Error, "taking the representor from a VF that is gone");
        }
        self.table().remove(place);
    }

    /// Gives a VF its SF, or takes it away, whether or not a driver has it. What it presents is QEMU's to say.
    pub(crate) async fn configure_vf(
        self: &Arc<Self>,
        doing: &str,
        place: Place,
        emulation: &Emulation,
    ) -> Result<(), PartError> {
        let _right = self.change(place).await;
        let (now, function) = {
            let table = self.table();
            let held = table.function(place).and_then(|held| held.emulated.emulation.clone());
            let (Some(now), Some(function)) = (held, table.back_end(place)) else {
                return Err(PartError::failed(format!("{doing}: there is none")));
            };
            (now, Arc::clone(function))
        };
        if now.settings != emulation.settings {
            return Err(PartError::refused(
                Refusal::MachineRuns,
                format!("{doing}: QEMU was started with what it presents, and can't change it"),
            ));
        }
        if now.sf != emulation.sf {
            let tap = emulation.sf.map(|key| self.representor(doing, place, key)).transpose()?;
            let given = function.set_tap(tap).await;
            given.map_err(|error| PartError::failed(doing.to_owned()).caused_by(error))?;
        }
        self.table().edit(place, |emulated| emulated.emulation = Some(emulation.clone()));
        links::set(self, place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use virtnet_model::{Feature, Mac};

    use super::*;

    fn seen() -> Seen {
        Seen {
            id: "vf".to_owned(),
            ours: false,
            bdf: None,
            transitional: Some(false),
            mac: Some(Mac::local([0, 0, 0, 0, 7])),
            mtu: None,
            vectors: Some(6),
            queue_size: Some(512),
            features: Some(Features::controller_default()),
            up: None,
            filter: None,
            unplugging: None,
        }
    }

    #[test]
    fn a_vf_presents_what_qemu_has_for_it_as_far_as_its_back_end_has_it_too() {
        let of = |offloads| presented(&seen(), Carries { offloads }).unwrap();
        let Settings { mac, mtu, max_queues, queue_size, num_msix, features, transitional } = of(false);
        assert_eq!((mac, mtu, transitional), (Mac::local([0, 0, 0, 0, 7]), Mtu::DEFAULT, false));
        assert_eq!((max_queues, u32::from(queue_size), num_msix), (5, 512, 6));
        assert!(!features.contains(Feature::Csum) && of(true).features.contains(Feature::Csum));
        // Of one that is just going QEMU tells only a part.
        assert_eq!(presented(&Seen { mac: None, ..seen() }, Carries::default()), None);
        assert_eq!(presented(&Seen { features: None, ..seen() }, Carries::default()), None);
    }
}
