//! Commands of the later guides, against the service of that generation.

use serde_json::{Value, json};

use crate::dpu::Dpu;
use crate::firmware::SRIOV;
use crate::list::text;

const LATER: &str = "{\"generation\": \"later\"}";

#[test]
fn packets_are_counted_and_a_driver_that_goes_wrong_is_seen() {
    let dpu = Dpu::with_conf(SRIOV, LATER);
    dpu.until_booted();
    let bdf = text(&dpu.until_bound("-p 0"), "bdf").to_owned();
    dpu.host(&format!("traffic {bdf} 0 1514 5"));
    dpu.host(&format!("traffic {bdf} 1 64 2"));
    let stats = dpu.run("virtnet stats -p 0");
    let queues = &stats["device"]["queues-stats"];
    assert_eq!((&queues[0]["VQ Index"], &queues[1]["VQ Index"]), (&json!(0), &json!(1)));
    assert_eq!(queues[0]["rx_1024_to_1522_octet_packets"], 5);
    assert_eq!(queues[1]["tx_64_or_less_octet_packets"], 2);
    assert_eq!(queues[1]["total_bytes"], "128");
    let why = dpu.host_refused(&format!("traffic {bdf} 0 9000 1"));
    assert!(why.contains("with an MTU of 1500"), "{why}");
    let why = dpu.host_refused(&format!("traffic {bdf} 2 64 1"));
    assert!(why.contains("it is for commands"), "{why}");

    for which in ["-p 1", "-p 2", "-p 3"] {
        dpu.until_bound(which);
    }
    let health = |words: &str| dpu.run(&format!("virtnet health {words}"));
    assert_eq!(health("")["controller"]["health_status"], "Good");
    assert_eq!(health("-p 0")["devices"][0]["health_status"], "Good");
    dpu.host(&format!("misuse {bdf} 1 bad-buffer 3"));
    let device = &health("-p 0")["devices"][0];
    assert_eq!(device["health_status"], "Degraded", "{device}");
    assert_eq!(device["queue_errors"]["invalid_buffer"], 3, "{device}");
    let others = health("-a");
    let good = |device: &&Value| device["health_status"] == "Good";
    assert_eq!(others["devices"].as_array().unwrap().iter().filter(good).count(), 3);
}

#[test]
fn interrupts_are_moderated_while_the_driver_has_the_function() {
    let dpu = Dpu::with_conf(SRIOV, LATER);
    dpu.until_booted();
    dpu.until_bound("-p 0");
    dpu.done("virtnet modify -p 0 queue -e event -n 10 -c 30");
    let queue = &dpu.query("-p 0 -q 0")["enabled-queues-info"][0];
    for (key, value) in [("rq_cq_period_mode", "0"), ("rq_cq_period", "10"), ("rq_cq_max_count", "30")] {
        assert_eq!(queue[key], value, "{key}: {queue}");
    }
}

#[test]
fn a_configuration_is_validated_before_the_service_is_started_with_it() {
    let dpu = Dpu::with_conf(SRIOV, LATER);
    let valid = dpu.run("virtnet validate");
    assert_eq!((&valid["status"], &valid["file"]), (&json!("valid"), &json!(dpu.conf())));
    let warnings = valid["warnings"].to_string();
    assert!(warnings.contains("more than 127 VFs"), "{warnings}");
    let more = r#"{"generation": "later", "vf": {"vfs_per_pf": 127, "mac_base": "00:11:22:33:44:55"}}"#;
    std::fs::write(dpu.conf(), more).unwrap();
    let why = dpu.refused("virtnet validate");
    assert!(why.contains("vf.vfs_per_pf 127 is above VIRTIO_NET_EMULATION_NUM_VF=126"), "{why}");
}
