//! The texts that a person reads behind a failing probe.

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

fn everything_in_place() -> Readiness {
    Readiness {
        source_complete: true,
        source_problem: None,
        last_reconcile: Some(Ok(())),
        unattached: BTreeMap::new(),
    }
}

#[test]
fn an_agent_that_has_just_begun_is_alive_and_not_ready() {
    let start = Instant::now();
    let health = Health::new(start, LIMIT);
    assert_eq!(health.live(start), Answer { ok: true, text: "ok\n".into() });
    assert_eq!(
        health.ready(start),
        Answer {
            ok: false,
            text: "source of pods and policies has not named everything it holds: \
                   pods stay closed until it has\nno reconcile yet\n"
                .into()
        }
    );
}

#[test]
fn a_loop_that_stands_still_is_neither_alive_nor_ready_until_it_moves() {
    let start = Instant::now();
    let health = Health::new(start, LIMIT);
    health.update(|readiness| *readiness = everything_in_place());
    assert!(health.live(start + LIMIT).ok);
    assert!(health.ready(start + LIMIT).ok);

    let late = start + Duration::from_secs(31);
    let text = "the agent's loop has not moved for 31 s (limit 30 s); the programs in the kernel \
                keep enforcing the last policy\n";
    assert_eq!(health.live(late), Answer { ok: false, text: text.into() });
    assert_eq!(health.ready(late), Answer { ok: false, text: text.into() });

    health.beat(late);
    assert!(health.live(late).ok);
    assert!(health.ready(late).ok);
}

#[test]
fn a_heartbeat_from_the_future_is_fresh() {
    let start = Instant::now();
    let health = Health::new(start + LIMIT, LIMIT);
    assert!(health.live(start).ok);
}

#[test]
fn everything_that_is_missing_stands_on_a_line_of_its_own() {
    let start = Instant::now();
    let health = Health::new(start, LIMIT);
    health.update(|readiness| {
        *readiness = Readiness {
            source_complete: false,
            source_problem: Some("directory /etc/bulkhead is gone".into()),
            last_reconcile: Some(Err("map rules is full\n(262144 entries)".into())),
            unattached: BTreeMap::from([
                (ObjectKey::new("shop", "web"), "no interface has 10.0.0.9".into()),
                (ObjectKey::new("shop", "db"), "attach to veth3: permission denied".into()),
            ]),
        };
    });
    let answer = health.ready(start);
    assert!(!answer.ok);
    assert_eq!(
        answer.text.lines().collect::<Vec<_>>(),
        [
            "source of pods and policies is not available: directory /etc/bulkhead is gone",
            "source of pods and policies has not named everything it holds: \
             pods stay closed until it has",
            "last reconcile failed: map rules is full (262144 entries)",
            "pod shop/db is not enforced: attach to veth3: permission denied",
            "pod shop/web is not enforced: no interface has 10.0.0.9",
        ]
    );
}

#[test]
fn each_thing_alone_keeps_the_agent_from_being_ready() {
    let lacks: [fn(&mut Readiness); 5] = [
        |r| r.source_complete = false,
        |r| r.source_problem = Some("gone".into()),
        |r| r.last_reconcile = None,
        |r| r.last_reconcile = Some(Err("full".into())),
        |r| drop(r.unattached.insert(ObjectKey::new("a", "b"), "no interface".into())),
    ];
    assert_eq!(everything_in_place().missing(), Vec::<String>::new());
    for lack in lacks {
        let mut readiness = everything_in_place();
        lack(&mut readiness);
        assert_eq!(readiness.missing().len(), 1, "{readiness:?}");
    }
}
