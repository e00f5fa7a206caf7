//! `virtnet unplug`: removes a hot-plugged function (the guide, section 1.2.2).

use clap::ArgGroup;
use virtnet_model::{Controller, PfId, Vuid};
use virtnet_rpc::Client;

use crate::output;
use crate::value::number;
use crate::which::{self, Which};

const EXAMPLES: &str = "\
Examples:
  virtnet unplug -p 4
  virtnet unplug -u VNETS1D0F0";

/// What `unplug` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("which").args(["pf", "vuid"]).required(true))]
pub(crate) struct Arguments {
    /// The index of the PF (pf_id in virtnet list)
    #[arg(short, long, value_parser = number::<PfId>)]
    pf: Option<PfId>,
    /// The VUID of the PF (vuid in virtnet list)
    #[arg(short = 'u', long)]
    vuid: Option<Vuid>,
}

/// Runs it. That only hot-plugged functions can be unplugged is the controller's to say.
pub(crate) async fn run(arguments: &Arguments, service: &Client) -> anyhow::Result<String> {
    let which = Which { pf: arguments.pf, vf: None, vuid: arguments.vuid.clone() };
    let state = service.observe().await?;
    service.unplug(&which::target(which.find(&state)?)?).await?;
    output::done()
}
