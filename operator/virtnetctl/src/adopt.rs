//! The device that takes on an undeclared function as it is: pure.
//!
//! A field is given where the function has that value already, and leaving it out would mean another one, now or when it is
//! plugged again: so a hot-plugged function is told with all its settings. MTU, queues, MSI-X, features and the MAC of static
//! PFs and VFs are left out: without them the controller's own stay.

use virtnet_crds::{
    Feature, Function, FunctionType, HotplugFunction, PortSpec, Queues, StaticFunction, UndeclaredFunction,
    Uplink, VfFunction, VirtnetDevice, VirtnetDeviceSpec, fitting_name, limits,
};
use virtnet_model::{BridgeName, EswitchPort, IfName, Mac, SfNumber, sf_of};

use crate::output;

/// A device that takes on a function.
#[derive(Clone, Debug)]
pub(crate) struct Adopted {
    pub(crate) device: VirtnetDevice,
    /// Settings of a hot-plugged function that the device does not pin: its agent did not tell them, or no spec can.
    pub(crate) unpinned: Vec<&'static str>,
}

/// The device for a function of this DPU.
///
/// # Errors
/// Why there can be none, where what the agent told of the function does not tell it from others.
pub(crate) fn device(
    dpu: &str,
    namespace: &str,
    function: &UndeclaredFunction,
    bridge: Option<&BridgeName>,
) -> Result<Adopted, String> {
    let Identity { name, function: choice, mac } = identity(function)?;
    let Settings { mtu, queues, msix, features, unpinned } = match function.type_ {
        FunctionType::HotPlug => Settings::of(function),
        FunctionType::Static | FunctionType::Vf => Settings::default(),
    };
    let spec = VirtnetDeviceSpec {
        dpu: Some(dpu.to_owned()),
        function: choice.into(),
        mac: mac.map(|mac| mac.to_string()),
        mtu,
        queues,
        msix,
        features,
        link_state: function.link_state.ok_or("whether its representor is up is not known")?,
        port: bridge.map(|bridge| PortSpec { bridge: bridge.to_string(), ..PortSpec::default() }),
        ..VirtnetDeviceSpec::default()
    };
    let mut device = VirtnetDevice::new(&fitting_name(format!("{dpu}-{name}")), spec);
    device.metadata.namespace = Some(namespace.to_owned());
    Ok(Adopted { device, unpinned })
}

/// What a hot-plug is told beside the identity.
#[derive(Debug, Default)]
struct Settings {
    mtu: Option<u16>,
    queues: Option<Queues>,
    msix: Option<u16>,
    features: Option<Vec<Feature>>,
    unpinned: Vec<&'static str>,
}

impl Settings {
    /// Those of the function that a spec can have.
    fn of(function: &UndeclaredFunction) -> Self {
        let mtu = function.mtu.filter(|mtu| (limits::MTU_MIN..=limits::MTU_MAX).contains(mtu));
        let max = function.max_queues.filter(|queues| (2..limits::MSIX_MAX).contains(queues));
        let size = function
            .max_queue_size
            .filter(|size| size.is_power_of_two() && (2..=limits::QUEUE_SIZE_MAX).contains(size));
        let msix = function
            .num_msix
            .filter(|msix| (1..=limits::MSIX_MAX).contains(msix) && max.is_none_or(|queues| queues < *msix));
        let features = function.features.iter().map(|name| name.parse().ok());
        let features: Option<Vec<Feature>> = features.collect();
        let features = features.filter(|features| !features.is_empty());
        let pinned = [
            ("mtu", mtu.is_some()),
            ("queues.max", max.is_some()),
            ("queues.size", size.is_some()),
            ("msix", msix.is_some()),
            ("features", features.is_some()),
        ];
        Self {
            mtu,
            queues: (max.is_some() || size.is_some()).then_some(Queues { max, size }),
            msix,
            features,
            unpinned: pinned.iter().filter(|(_, is)| !is).map(|(name, _)| *name).collect(),
        }
    }
}

/// What a person knows the function by: its VUID, its address on the host and its representor.
pub(crate) fn shown(function: &UndeclaredFunction) -> String {
    let bdf = function.bdf.as_ref().map(|bdf| format!(" at {bdf}"));
    let representor = function.representor.as_ref().map(|name| format!(", representor {name}"));
    output::plain(&format!("{}{}{}", function.vuid, bdf.unwrap_or_default(), representor.unwrap_or_default()))
}

/// What tells a function from all others of its DPU.
struct Identity {
    /// The same in words: the end of the device's name.
    name: String,
    function: Function,
    /// Only where it is part of the identity.
    mac: Option<Mac>,
}

fn identity(function: &UndeclaredFunction) -> Result<Identity, String> {
    let pf = || function.pf.ok_or("its agent did not tell the index of its PF");
    Ok(match function.type_ {
        FunctionType::Static => {
            let pf = pf()?;
            Identity { name: format!("pf{pf}"), function: Function::Static(StaticFunction { pf }), mac: None }
        }
        FunctionType::Vf => {
            let (pf, vf) = (pf()?, function.vf.ok_or("its agent did not tell its index on its PF")?);
            // Whether a VF is transitional is the firmware's to say: no spec changes it.
            let choice = Function::Vf(VfFunction { pf, vf, transitional: false });
            Identity { name: format!("pf{pf}vf{vf}"), function: choice, mac: None }
        }
        FunctionType::HotPlug => {
            let mac = function.mac.as_deref().ok_or("its agent did not tell its MAC")?;
            let mac: Mac = mac.parse().map_err(|error| format!("its MAC can't be declared: {error}"))?;
            let sf = function.representor.as_deref().and_then(|name| sf_of(&name.parse::<IfName>().ok()?));
            let number = sf.map(|(_, number)| u32::from(number)).filter(|number| is_declarable(*number));
            let hotplug = HotplugFunction {
                // On the first port it is left out: where both are bonded it is the bond's, else p0's.
                uplink: sf.filter(|(port, _)| *port == EswitchPort::P1).map(|_| Uplink::P1),
                transitional: function.transitional,
                sf_number: number,
                host: None,
            };
            let name = sf.map_or_else(|| mac.to_string().replace(':', ""), |(port, sf)| sf_name(port, sf));
            Identity { name, function: Function::Hotplug(hotplug), mac: Some(mac) }
        }
    })
}

fn is_declarable(sf: u32) -> bool {
    (limits::SF_NUMBER_MIN..=limits::SF_NUMBER_MAX).contains(&sf)
}

/// Numbers of SFs are unique on their port.
fn sf_name(port: EswitchPort, number: SfNumber) -> String {
    match port {
        EswitchPort::P0 => format!("sf{number}"),
        EswitchPort::P1 => format!("p1-sf{number}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use virtnet_crds::LinkState;

    use super::*;

    fn function(type_: FunctionType) -> UndeclaredFunction {
        UndeclaredFunction {
            vuid: "VNETS1D0F0".into(),
            type_,
            pf: Some(4),
            vf: None,
            bdf: Some("c0:00.0".into()),
            mac: Some("0c:c4:7a:ff:22:93".into()),
            mtu: Some(9000),
            max_queues: Some(2),
            max_queue_size: Some(512),
            num_msix: Some(3),
            features: vec!["CSUM".into(), "MQ".into()],
            transitional: false,
            representor: Some("en3f0pf0sf2000".into()),
            link_state: Some(LinkState::Up),
        }
    }

    fn named(function: &UndeclaredFunction) -> (String, Value) {
        let Adopted { device, unpinned } = device("bf3-a", "tenant", function, None).unwrap();
        assert!(unpinned.is_empty(), "{unpinned:?}");
        (device.metadata.name.unwrap(), serde_json::to_value(device.spec).unwrap())
    }

    #[test]
    fn each_kind_has_a_name_and_what_tells_it_from_others() {
        let (name, spec) = named(&function(FunctionType::Static));
        assert_eq!((name.as_str(), &spec["function"]), ("bf3-a-pf4", &json!({"static": {"pf": 4}})));
        assert_eq!(spec.get("mac"), None, "the controller's own stays");
        let (name, spec) = named(&UndeclaredFunction { vf: Some(3), ..function(FunctionType::Vf) });
        assert_eq!((name.as_str(), &spec["function"]), ("bf3-a-pf4vf3", &json!({"vf": {"pf": 4, "vf": 3}})));
        let (name, spec) = named(&function(FunctionType::HotPlug));
        let wanted = json!({
            "dpu": "bf3-a",
            "function": {"hotplug": {"sfNumber": 2000}},
            "mac": "0c:c4:7a:ff:22:93",
            "mtu": 9000,
            "queues": {"max": 2, "size": 512},
            "msix": 3,
            "features": ["CSUM", "MQ"],
            "linkState": "Up",
            "rebindPolicy": "Never",
        });
        assert_eq!((name.as_str(), spec), ("bf3-a-sf2000", wanted));
    }

    #[test]
    fn a_setting_that_no_spec_can_have_is_left_out_and_told() {
        let unpinned = |change: &dyn Fn(&mut UndeclaredFunction)| {
            let mut function = function(FunctionType::HotPlug);
            change(&mut function);
            let Adopted { device, unpinned } = device("bf3-a", "tenant", &function, None).unwrap();
            let has = [
                ("mtu", device.spec.mtu.is_some()),
                ("queues.max", device.spec.queues.as_ref().is_some_and(|queues| queues.max.is_some())),
                ("queues.size", device.spec.queues.as_ref().is_some_and(|queues| queues.size.is_some())),
                ("msix", device.spec.msix.is_some()),
                ("features", device.spec.features.is_some()),
            ];
            let lacks: Vec<_> = has.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
            assert_eq!(unpinned, lacks);
            unpinned.join(" ")
        };
        assert_eq!(unpinned(&|function| function.mtu = Some(9979)), "mtu");
        assert_eq!(unpinned(&|function| function.max_queues = Some(1)), "queues.max");
        assert_eq!(unpinned(&|function| function.max_queue_size = Some(500)), "queues.size");
        assert_eq!(
            unpinned(&|function| function.num_msix = Some(2)),
            "msix",
            "two queues take three vectors"
        );
        assert_eq!(unpinned(&|function| function.features.push("44".into())), "features");
        let older = |function: &mut UndeclaredFunction| {
            (function.mtu, function.max_queues, function.max_queue_size) = (None, None, None);
            (function.num_msix, function.features) = (None, Vec::new());
        };
        assert_eq!(unpinned(&older), "mtu queues.max queues.size msix features");
    }

    #[test]
    fn what_absence_would_change_is_told() {
        let second = UndeclaredFunction {
            representor: Some("en3f1pf1sf2000".into()),
            transitional: true,
            link_state: Some(LinkState::Down),
            ..function(FunctionType::HotPlug)
        };
        let (name, spec) = named(&second);
        assert_eq!((name.as_str(), &spec["linkState"]), ("bf3-a-p1-sf2000", &json!("Down")));
        let hotplug = json!({"uplink": "p1", "transitional": true, "sfNumber": 2000});
        assert_eq!(spec["function"]["hotplug"], hotplug);
    }

    #[test]
    fn a_hot_plugged_function_is_known_by_its_mac_where_its_sf_is_not() {
        let without = UndeclaredFunction { representor: None, ..function(FunctionType::HotPlug) };
        let (name, spec) = named(&without);
        assert_eq!((name.as_str(), &spec["function"]), ("bf3-a-0cc47aff2293", &json!({"hotplug": {}})));
        let low = UndeclaredFunction { representor: Some("en3f0pf0sf7".into()), ..without.clone() };
        let (name, spec) = named(&low);
        assert_eq!((name.as_str(), &spec["function"]), ("bf3-a-sf7", &json!({"hotplug": {}})));
        let unknown = UndeclaredFunction { mac: None, ..without };
        assert_eq!(device("d", "n", &unknown, None).unwrap_err(), "its agent did not tell its MAC");
    }

    #[test]
    fn a_link_is_not_said_to_be_up_where_that_is_not_known() {
        let unknown = UndeclaredFunction { link_state: None, ..function(FunctionType::Static) };
        let why = device("d", "n", &unknown, None).unwrap_err();
        assert_eq!(why, "whether its representor is up is not known");
    }

    #[test]
    fn it_is_shown_on_one_line() {
        let odd = UndeclaredFunction {
            vuid: "V\nkind: Secret".into(),
            bdf: Some("c0\r\u{85}".into()),
            representor: Some("r\u{2028}s".into()),
            ..function(FunctionType::Static)
        };
        assert_eq!(shown(&odd), "V kind: Secret at c0  , representor r s");
    }
}
