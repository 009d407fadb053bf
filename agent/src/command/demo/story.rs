//! The story, from top to bottom: what is done, which commands show it, and what they should show.
//!
//! Data only. Invariant: each command line is run as it stands here, by a shell in the namespace
//! of the pod (or node) whose name stands before it.

use super::{
    expectation::Expectation::{
        Counted, EveryPacketAnswered, EveryPacketLost, Greeted, Logged, PingRejected, Ready,
        Refused, TimedOut,
    },
    script::{
        Act, Chapter,
        Place::{Intruder, Node, Wordpress},
        Step,
    },
};

macro_rules! manifest {
    ($name:literal) => {
        include_str!(concat!("../../../../deploy/examples/wordpress-mysql/", $name))
    };
}

/// The files that are there from the beginning. The agent reads those in `manifests`.
pub(super) const FILES: [(&str, &str); 4] = [
    ("manifests/namespace.yaml", manifest!("namespace.yaml")),
    ("manifests/pods.yaml", manifest!("pods.yaml")),
    ("networkpolicy.yaml", manifest!("networkpolicy.yaml")),
    // The last mapping of the file is `metadata`.
    (
        "namespace-reject.yaml",
        concat!(
            manifest!("namespace.yaml"),
            "  annotations:\n    bulkhead.io/deny-action: reject\n"
        ),
    ),
];

pub(super) const INTRODUCTION: &str = "\
Bulkhead denies every packet to a pod that no NetworkPolicy allows. Here is what that looks like:
a WordPress, its database, and somebody who has no business with it.";

pub(super) const STORY: &[Chapter] = &[
    Chapter {
        title: "The agent starts",
        tells: "It reads pods and policies from a directory, finds each pod's interface, and \
                attaches its programs there. So far there is no policy.",
        act: Act::StartAgent,
        steps: &[Step {
            tells: "It says when every pod is taken care of.",
            place: Node,
            command: "curl -sS http://127.0.0.1:9180/readyz",
            expect: Ready,
        }],
    },
    Chapter {
        title: "Without a policy, everything connects",
        tells: "A pod that no policy selects is open to everybody.",
        act: Act::None,
        steps: &[
            Step {
                tells: "The intruder pings the database.",
                place: Intruder,
                command: "ping -c 3 -i 0.2 -W 1 10.0.0.10",
                expect: EveryPacketAnswered,
            },
            Step {
                tells: "It reaches a web server there ...",
                place: Intruder,
                command: "curl -sS --max-time 1 http://10.0.0.10/",
                expect: Greeted,
            },
            Step {
                tells: "... and the database itself. (The one of this demo only says hello.)",
                place: Intruder,
                command: "echo quit | curl -sS --max-time 1 telnet://10.0.0.10:3306",
                expect: Greeted,
            },
            Step {
                tells: "So does WordPress: the web server ...",
                place: Wordpress,
                command: "curl -sS --max-time 1 http://10.0.0.10/",
                expect: Greeted,
            },
            Step {
                tells: "... and the database.",
                place: Wordpress,
                command: "echo quit | curl -sS --max-time 1 telnet://10.0.0.10:3306",
                expect: Greeted,
            },
        ],
    },
    Chapter {
        title: "A policy: only WordPress, only TCP port 3306",
        tells: "The policy is put into the agent's directory. From then on the database is \
                isolated: what no rule allows is denied, and a denied packet vanishes.",
        act: Act::Run(&[
            "mv networkpolicy.yaml manifests/",
            "grep -v '^ *#' manifests/networkpolicy.yaml",
        ]),
        steps: &[
            Step {
                tells: "The intruder does not reach the database any more ...",
                place: Intruder,
                command: "echo quit | curl -sS --max-time 1 telnet://10.0.0.10:3306",
                expect: TimedOut,
            },
            Step {
                tells: "... nor the web server ...",
                place: Intruder,
                command: "curl -sS --max-time 1 http://10.0.0.10/",
                expect: TimedOut,
            },
            Step {
                tells: "... and cannot even tell whether there is anybody.",
                place: Intruder,
                command: "ping -c 3 -i 0.2 -W 1 10.0.0.10",
                expect: EveryPacketLost,
            },
            Step {
                tells: "WordPress reaches its database: that is what the rule says.",
                place: Wordpress,
                command: "echo quit | curl -sS --max-time 1 telnet://10.0.0.10:3306",
                expect: Greeted,
            },
            Step {
                tells: "The rule names one port. Others are denied to WordPress, too ...",
                place: Wordpress,
                command: "curl -sS --max-time 1 http://10.0.0.10/",
                expect: TimedOut,
            },
            Step {
                tells: "... and a rule for a TCP port does not imply pings.",
                place: Wordpress,
                command: "ping -c 3 -i 0.2 -W 1 10.0.0.10",
                expect: EveryPacketLost,
            },
        ],
    },
    Chapter {
        title: "The same over IPv6",
        tells: "Labels are what the policy speaks of, so it holds for every address of a pod.",
        act: Act::None,
        steps: &[
            Step {
                tells: "The intruder tries the database's IPv6 address.",
                place: Intruder,
                command: "ping -c 3 -i 0.2 -W 1 fd00:10::10",
                expect: EveryPacketLost,
            },
            Step {
                tells: "The database, by the same way:",
                place: Intruder,
                command: "echo quit | curl -sS --max-time 1 'telnet://[fd00:10::10]:3306'",
                expect: TimedOut,
            },
            Step {
                tells: "WordPress reaches it.",
                place: Wordpress,
                command: "echo quit | curl -sS --max-time 1 'telnet://[fd00:10::10]:3306'",
                expect: Greeted,
            },
        ],
    },
    Chapter {
        title: "Denied, and told so: reject",
        tells: "Silence hides the database, but keeps honest clients waiting. An annotation of the \
                namespace has the sender of a denied packet told at once.",
        act: Act::Run(&[
            "mv namespace-reject.yaml manifests/namespace.yaml",
            "grep -v '^ *#' manifests/namespace.yaml",
        ]),
        steps: &[
            Step {
                tells: "The intruder's ping is answered, by an error.",
                place: Intruder,
                command: "ping -c 3 -i 0.2 -W 1 10.0.0.10",
                expect: PingRejected,
            },
            Step {
                tells: "curl need not wait. (It tells why with -v.)",
                place: Intruder,
                command: "curl -sSv --max-time 1 http://10.0.0.10/",
                expect: Refused,
            },
            Step {
                tells: "The database:",
                place: Intruder,
                command: "echo quit | curl -sSv --max-time 1 telnet://10.0.0.10:3306",
                expect: Refused,
            },
            Step {
                tells: "WordPress is told, too, that there is nothing for it on port 80 ...",
                place: Wordpress,
                command: "curl -sSv --max-time 1 http://10.0.0.10/",
                expect: Refused,
            },
            Step {
                tells: "... and still reaches its database.",
                place: Wordpress,
                command: "echo quit | curl -sS --max-time 1 telnet://10.0.0.10:3306",
                expect: Greeted,
            },
            Step {
                tells: "IPv6 again: the intruder's ping ...",
                place: Intruder,
                command: "ping -c 3 -i 0.2 -W 1 fd00:10::10",
                expect: PingRejected,
            },
            Step {
                tells: "... its connection ...",
                place: Intruder,
                command: "curl -sSv --max-time 1 'http://[fd00:10::10]/'",
                expect: Refused,
            },
            Step {
                tells: "... and that of WordPress.",
                place: Wordpress,
                command: "echo quit | curl -sS --max-time 1 'telnet://[fd00:10::10]:3306'",
                expect: Greeted,
            },
        ],
    },
    Chapter {
        title: "Without the policy, everything connects again",
        tells: "The policy's file is removed.",
        act: Act::Run(&["rm manifests/networkpolicy.yaml"]),
        steps: &[
            Step {
                tells: "The intruder pings the database ...",
                place: Intruder,
                command: "ping -c 3 -i 0.2 -W 1 10.0.0.10",
                expect: EveryPacketAnswered,
            },
            Step {
                tells: "... by IPv6, too ...",
                place: Intruder,
                command: "ping -c 3 -i 0.2 -W 1 fd00:10::10",
                expect: EveryPacketAnswered,
            },
            Step {
                tells: "... and connects.",
                place: Intruder,
                command: "echo quit | curl -sS --max-time 1 telnet://10.0.0.10:3306",
                expect: Greeted,
            },
            Step {
                tells: "WordPress reaches port 80.",
                place: Wordpress,
                command: "curl -sS --max-time 1 http://10.0.0.10/",
                expect: Greeted,
            },
        ],
    },
    Chapter {
        title: "What was denied can be seen",
        tells: "Every denied packet was counted in the kernel. A few of them are in the agent's \
                log, too.",
        act: Act::None,
        steps: &[
            Step {
                tells: "The metrics page, where a monitoring system would look:",
                place: Node,
                command: "curl -sS http://127.0.0.1:9180/metrics \
                          | grep '^bulkhead_packets_total.*pod=\"mysql\".*deny'",
                expect: Counted,
            },
            Step {
                tells: "The log says who was denied what, and which policies isolate the pod:",
                place: Node,
                command: "grep -m 5 bulkhead::drops agent.log",
                expect: Logged,
            },
        ],
    },
];

#[cfg(test)]
mod tests;
