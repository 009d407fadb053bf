//! Policies that were sent to a real API server (Kubernetes 1.36.2), and what it made of them.
//!
//! Names that begin with `old-` are of a server with the feature gates of older clusters
//! (`StrictIPCIDRValidation` off). Left out is what the server refused for other reasons than the
//! policy itself: names that are taken, rights, versions of the object, sizes.

use serde_json::Value;

use super::*;

/// What a new server refuses, and the same server with old feature gates stores. It may be stored
/// from older days, so it is understood.
const STORED_BY_OLD_SERVERS: [&str; 3] =
    ["policy-cidr-host-bits", "policy-cidr-leading-zeros", "policy-cidr-v4-mapped"];

/// What the server drops before it stores the rest, which then is a rule that admits everybody. In a
/// manifest it is a mistake.
const DROPPED_BY_THE_SERVER: [&str; 3] =
    ["policy-ingress-null-item", "policy-unknown-field", "policy-warn-unknown-field"];

fn recorded() -> Vec<Value> {
    serde_json::from_str(include_str!("recorded_policies.json")).unwrap()
}

fn is_sound(object: &Value) -> bool {
    policy(object).is_ok_and(|converted| converted.object.refused.is_none())
}

#[test]
fn what_a_server_stored_is_understood() {
    let stored: Vec<_> = recorded().into_iter().filter(|r| r["stored"].is_object()).collect();
    assert_eq!(stored.len(), 30);
    for recording in stored {
        let name = recording["name"].as_str().unwrap();
        assert!(is_sound(&recording["stored"]), "{name}: {}", recording["stored"]);
        if let Some(sent) = recording.get("sent").filter(|_| !DROPPED_BY_THE_SERVER.contains(&name))
        {
            let means = |object| policy(object).unwrap().object;
            let sent = Policy { key: means(&recording["stored"]).key, ..means(sent) };
            assert_eq!(sent, means(&recording["stored"]), "{name}");
        }
    }
}

#[test]
fn what_a_server_refused_is_refused() {
    let refused: Vec<_> = recorded().into_iter().filter(|r| r["answer"].is_string()).collect();
    assert_eq!(refused.len(), 35);
    for recording in refused {
        let name = recording["name"].as_str().unwrap();
        let expected = STORED_BY_OLD_SERVERS.contains(&name);
        assert_eq!(is_sound(&recording["sent"]), expected, "{name}: {}", recording["answer"]);
    }
}

#[test]
fn what_the_server_would_drop_is_refused_in_a_manifest() {
    for recording in recorded() {
        if DROPPED_BY_THE_SERVER.contains(&recording["name"].as_str().unwrap()) {
            assert!(!is_sound(&recording["sent"]), "{recording}");
        }
    }
}
