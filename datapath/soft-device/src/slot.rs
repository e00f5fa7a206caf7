//! Functions in slots: plugged, unplugged, replaced where a host has a bus, and sockets that come and go where none has.

use std::sync::Arc;

use tokio::time::timeout;
use virtnet_controller::{Emulated, Emulation, Place, Settings};
use virtnet_model::PartError;
use virtnet_qemu_host::{Backend, Bus, BusError, Connection};
use virtnet_soft::{Function, FunctionError};

use crate::device::Shared;
use crate::links;
use crate::table::Held;

impl Shared {
    /// What QEMU is to connect to.
    fn listening(&self, place: Place) -> Backend {
        // Once this process ends a function is nobody's, and another process plugs one of its own.
        Backend { socket: self.socket(place), reconnect: None }
    }

    /// Plugs a function into a slot that is free. What an earlier process has left there goes.
    pub(crate) async fn plug(self: &Arc<Self>, slot: u16, emulation: &Emulation) -> Result<(), PartError> {
        let place = Place::Slot(slot);
        let doing = format!("plug into {place}");
        if slot >= self.config.slots() {
            return Err(PartError::failed(format!("{doing}: there are {} slots", self.config.slots())));
        }
        let _right = self.change(place).await;
        if self.table().function(place).is_some() {
            return Err(PartError::failed(format!("{doing}: it is taken")));
        }
        let function = self.open(&doing, place, emulation)?;
        let up = self.table().is_up(emulation.sf);
        if let Some(bus) = self.bus(place)
            && let Err(error) = self.put_in(&bus, slot, &emulation.settings, up).await
        {
            function.close().await;
            return Err(error.into());
        }
        let plugged = self.is_plugged(place);
        let socket = (!plugged).then(|| self.socket(place));
        let emulated = Emulated { emulation: Some(emulation.clone()), socket, ..Emulated::default() };
        let back_end = self.back_end(place, function);
        {
            let mut table = self.table();
            table.set_back_end(place, Some(back_end));
            table.add(place, Held { emulated, leaving: false, down: plugged && !up });
        }
        self.look_at(place);
        links::set(self, place);
        Ok(())
    }

    /// Puts a function in a slot of a host that runs. One that is off has it when it comes.
    async fn put_in(&self, bus: &Bus, slot: u16, settings: &Settings, up: bool) -> Result<(), BusError> {
        let backend = self.listening(Place::Slot(slot));
        bus.fits(slot, settings, &backend)?;
        if self.is_off(bus).await {
            return Ok(());
        }
        bus.replace(slot, settings, &backend, up, self.config.patience()).await.map(drop)
    }

    /// Whether no QEMU runs, so that nothing is in its slots. Of one that has just ended, or that was not asked yet, this is known a
    /// moment later.
    async fn is_off(&self, bus: &Bus) -> bool {
        let mut state = bus.state();
        let known = state.wait_for(|state| !matches!(state.connection, Connection::Down { gone: false, .. }));
        match timeout(self.config.patience(), known).await {
            Ok(Ok(state)) => matches!(state.connection, Connection::Down { gone: true, .. }),
            // Whoever asks it for something is told why it does not answer.
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Takes the function out of a slot, once its guest has let go of it.
    pub(crate) async fn unplug(self: &Arc<Self>, slot: u16) -> Result<(), PartError> {
        let place = Place::Slot(slot);
        let _right = self.change(place).await;
        if self.table().function(place).is_none() {
            return Err(PartError::failed(format!("unplug from {place}: it is empty")));
        }
        if let Some(bus) = self.bus(place)
            && !self.is_off(&bus).await
            && let Err(error) = bus.unplug(slot, self.config.patience()).await
        {
            // The guest may let go later, and is not given it back then.
            let kept = matches!(error, BusError::Kept { .. });
            self.table().set_leaving(place, kept);
            return Err(error.into());
        }
        let back_end = self.table().take_back_end(place);
        Self::close(back_end).await;
        self.table().remove(place);
        Ok(())
    }

    /// Has a function that no driver has present other settings. QEMU fixes them when a device is made: on a bus it is taken out for
    /// that, and put in anew. Where that can't be done it is as it was before.
    pub(crate) async fn reconfigure(
        &self,
        doing: &str,
        place: Place,
        function: &Function,
        before: &Settings,
        settings: &Settings,
    ) -> Result<(), PartError> {
        let failed = |error: FunctionError| match error {
            FunctionError::InUse { .. } => PartError::refused(
                virtnet_model::Refusal::DriverLoaded,
                format!("{doing}: Virtio driver should not be loaded"),
            ),
            error => PartError::failed(doing.to_owned()).caused_by(error),
        };
        let (Place::Slot(slot), Some(bus)) = (place, self.bus(place)) else {
            return function.configure(settings, self.carries).await.map_err(failed);
        };
        let backend = self.listening(place);
        bus.fits(slot, settings, &backend)?;
        if self.is_off(&bus).await {
            return function.configure(settings, self.carries).await.map_err(failed);
        }
        bus.unplug(slot, self.config.patience()).await?;
        let put = async |settings: &Settings| {
            function.configure(settings, self.carries).await.map_err(failed)?;
            let up = self.table().tell_link(place);
            bus.plug(slot, settings, &backend, up).await.map(drop).map_err(PartError::from)
        };
        let Err(error) = put(settings).await else { return Ok(()) };
        if let Err(error) = put(before).await {
            tracing::error!(%place, %error, "a function that was to be replaced is off its bus until its host comes anew");
        }
        Err(error)
    }

    /// Plugs anew what is to be in a slot and is not, since its QEMU was started anew, or its guest has let go of what was to be
    /// replaced only after nobody waited any more.
    pub(crate) async fn plug_anew(self: &Arc<Self>, slot: u16) {
        let place = Place::Slot(slot);
        let Some(bus) = self.bus(place) else { return };
        let _right = self.change(place).await;
        {
            let state = bus.state();
            let state = state.borrow();
            if state.functions.contains_key(&place) || !matches!(state.connection, Connection::Up { .. }) {
                return;
            }
        }
        let settings = {
            let table = self.table();
            let Some(held) = table.function(place).filter(|held| !held.leaving) else { return };
            held.emulated.emulation.as_ref().map(|emulation| emulation.settings.clone())
        };
        let Some(settings) = settings else { return };
        let up = self.table().tell_link(place);
        match bus.plug(slot, &settings, &self.listening(place), up).await {
            Ok(_) => tracing::info!(%place, "plugged anew"),
            Err(error) => tracing::error!(%place, error = &error as &dyn std::error::Error, "plugging anew"),
        }
        self.look_at(place);
    }

    /// Takes out of a slot what an earlier process has left there.
    pub(crate) async fn take_out_left(self: &Arc<Self>, slot: u16) {
        let place = Place::Slot(slot);
        let Some(bus) = self.bus(place) else { return };
        let _right = self.change(place).await;
        if self.table().function(place).is_some() {
            return;
        }
        match bus.unplug(slot, self.config.patience()).await {
            Ok(()) => tracing::info!(%place, "what an earlier service has left is taken out"),
            Err(error) => tracing::warn!(
                %place, error = &error as &dyn std::error::Error, "taking out what an earlier service has left"
            ),
        }
    }
}
