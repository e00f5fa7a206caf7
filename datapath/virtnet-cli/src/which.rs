//! Which function is meant: [`Which`], by its index or its VUID, and the [`Target`] that it is to the controller. Pure.

use anyhow::{Context, bail};
use virtnet_model::{ControllerState, Function, FunctionId, PartError, PfId, Refusal, Target, VfId, Vuid};

use crate::value::number;

/// A function as it is named on the command line: of a PF's index and a VUID there is one, which who takes this sees to.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// The index of the PF (pf_id in virtnet list)
    #[arg(short, long, value_parser = number::<PfId>)]
    pub(crate) pf: Option<PfId>,
    /// The index of one of the PF's VFs (vf_id in virtnet list)
    // The conflict is told too: what excludes the PF lifts that it is required.
    #[arg(short, long, value_parser = number::<VfId>, requires = "pf", conflicts_with = "vuid")]
    pub(crate) vf: Option<VfId>,
    /// The VUID of a PF or VF (vuid in virtnet list)
    #[arg(short = 'u', long)]
    pub(crate) vuid: Option<Vuid>,
}

impl Which {
    /// The place in the device table, where it is named by that.
    fn id(&self) -> Option<FunctionId> {
        self.pf.map(|pf| FunctionId { pf, vf: self.vf })
    }

    /// Whether a function is named.
    pub(crate) fn is_named(&self) -> bool {
        self.pf.is_some() || self.vuid.is_some()
    }

    /// The VF, where it is one that the host has not made.
    pub(crate) fn vf_to_come(&self, state: &ControllerState) -> Option<(PfId, VfId)> {
        let id = self.id().filter(|id| !state.functions.contains_key(id))?;
        id.vf.map(|vf| (id.pf, vf))
    }

    /// The function.
    pub(crate) fn find<'a>(&self, state: &'a ControllerState) -> anyhow::Result<&'a Function> {
        const SEE: &str = "virtnet list shows what there is";
        if let Some(place) = self.vf_to_come(state) {
            let prepared = state.prepared.get(&place).map(|change| format!("; it will have {change} then"));
            let (pf, vf) = place;
            bail!(
                "there is no {}: the host makes it (sriov_numvfs){}; {SEE}",
                FunctionId::vf(pf, vf),
                prepared.unwrap_or_default()
            );
        }
        if let Some(id) = self.id() {
            return state.functions.get(&id).with_context(|| format!("there is no {id}: {SEE}"));
        }
        let Some(vuid) = &self.vuid else { bail!("no function is named") };
        let mut functions = state.functions.values();
        functions
            .find(|function| function.vuid == *vuid)
            .with_context(|| format!("nothing has the VUID {vuid}: {SEE}"))
    }
}

/// Whether the function that was asked of is no more.
pub(crate) fn is_gone(error: &anyhow::Error) -> bool {
    let refusal = error.downcast_ref::<PartError>().and_then(PartError::refusal);
    matches!(refusal, Some(Refusal::NoSuchFunction | Refusal::NoSuchVf))
}

/// What the function is to the controller.
pub(crate) fn target(function: &Function) -> anyhow::Result<Target> {
    function.target().with_context(|| format!("{} has no SF yet", function.vuid))
}
