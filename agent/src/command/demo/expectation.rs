//! What a command of the story should lead to, and whether it did.
//!
//! Pure: it judges what a command printed and how it ended. Invariant: an output that is not
//! understood meets no expectation.

use std::fmt;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Its exit status; `None` if a signal ended it.
    pub(super) status: Option<i32>,
    /// What it printed, errors included.
    pub(super) output: String,
}

/// What a command should lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// The agent enforces all that it should.
    Ready,
    /// ping: an answer to every packet.
    EveryPacketAnswered,
    /// ping: not a sign of life.
    EveryPacketLost,
    /// ping: told that the port is unreachable.
    PingRejected,
    /// curl: the greeting of the listener.
    Greeted,
    /// curl: not a sign of life.
    TimedOut,
    /// curl: told that the connection is refused.
    Refused,
    /// Rows of the metrics page that count denied packets.
    Counted,
    /// Lines of the agent's log that say who was denied what, and by which policy.
    Logged,
}

/// Whether an expectation is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is.
    Met,
    /// What happened instead.
    Failed(String),
}

/// ping's last words: "3 packets transmitted, 0 received, +3 errors, 100% packet loss".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PingSummary {
    transmitted: u32,
    received: u32,
    errors: u32,
}

/// The exit statuses of curl, by its manual page.
const CURL_FAILED_TO_CONNECT: i32 = 7;
const CURL_TIMED_OUT: i32 = 28;

/// Words of iputils' ping: of IPv4, and of IPv6.
const PORT_UNREACHABLE: [&str; 2] =
    ["Destination Port Unreachable", "Destination unreachable: Port unreachable"];

impl Expectation {
    /// Compares with what happened.
    pub(super) fn judge(self, outcome: &Outcome) -> Judgement {
        let met = match self {
            Self::Ready => outcome.status == Some(0) && outcome.output.trim() == "ok",
            Self::EveryPacketAnswered | Self::EveryPacketLost | Self::PingRejected => {
                return self.judge_ping(outcome);
            }
            Self::Greeted => outcome.status == Some(0) && outcome.output.contains("hello from "),
            Self::TimedOut => outcome.status == Some(CURL_TIMED_OUT),
            Self::Refused => {
                outcome.status == Some(CURL_FAILED_TO_CONNECT)
                    && outcome.output.contains("Connection refused")
            }
            Self::Counted => denied_packets(&outcome.output).is_some_and(|count| count > 0),
            Self::Logged => is_drop_log(&outcome.output),
        };
        if met {
            return Judgement::Met;
        }
        Judgement::Failed(match outcome.status {
            Some(0) => "the command succeeded".to_owned(),
            Some(status) => format!("the command failed with status {status}"),
            None => "the command did not end by itself".to_owned(),
        })
    }

    fn judge_ping(self, outcome: &Outcome) -> Judgement {
        let Some(ping) = PingSummary::find(&outcome.output) else {
            return Judgement::Failed("ping printed no summary".to_owned());
        };
        let unreachable = PORT_UNREACHABLE.iter().any(|words| outcome.output.contains(words));
        let none_answered = ping.transmitted > 0 && ping.received == 0;
        let met = match self {
            Self::EveryPacketAnswered => {
                ping.transmitted > 0 && ping.received == ping.transmitted && ping.errors == 0
            }
            Self::EveryPacketLost => none_answered && ping.errors == 0,
            Self::PingRejected => none_answered && ping.errors > 0 && unreachable,
            Self::Ready
            | Self::Greeted
            | Self::TimedOut
            | Self::Refused
            | Self::Counted
            | Self::Logged => false,
        };
        if met { Judgement::Met } else { Judgement::Failed(ping.to_string()) }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "the agent is ready",
            Self::EveryPacketAnswered => "every packet is answered",
            Self::EveryPacketLost => "every packet is lost",
            Self::PingRejected => "every packet is rejected: \"port unreachable\"",
            Self::Greeted => "mysql answers",
            Self::TimedOut => "nothing answers, curl gives up",
            Self::Refused => "the connection is refused at once",
            Self::Counted => "the denied packets were counted",
            Self::Logged => "the log names pods, ports and the policy",
        })
    }
}

impl PingSummary {
    fn find(output: &str) -> Option<Self> {
        let line = output.lines().find(|line| line.contains(" packets transmitted, "))?;
        let mut summary = Self::default();
        for part in line.split(", ") {
            let (number, what) = part.split_once(' ')?;
            let field = match what {
                "packets transmitted" => &mut summary.transmitted,
                "received" => &mut summary.received,
                "errors" => &mut summary.errors,
                _ => continue,
            };
            *field = number.trim_start_matches('+').parse().ok()?;
        }
        Some(summary)
    }
}

impl fmt::Display for PingSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transmitted, received, errors } = self;
        write!(f, "{received} of {transmitted} packets were answered, {errors} by errors")
    }
}

/// The sum of all rows of the metrics page that count denied packets; `None` if there is none, or
/// one that is not understood.
fn denied_packets(rows: &str) -> Option<u64> {
    let rows = rows.lines().filter(|row| {
        row.starts_with("bulkhead_packets_total{") && row.contains("verdict=\"deny\"")
    });
    let counts = rows.map(|row| row.rsplit_once(' ')?.1.parse::<u64>().ok());
    counts.reduce(|sum, count| sum?.checked_add(count?)).flatten()
}

fn is_drop_log(lines: &str) -> bool {
    !lines.is_empty()
        && lines.lines().all(|line| {
            ["packet denied", "wordpress-mysql/mysql", "mysql-from-wordpress"]
                .iter()
                .all(|words| line.contains(words))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERED: &str = "\
PING 10.0.0.10 (10.0.0.10) 56(84) bytes of data.
64 bytes from 10.0.0.10: icmp_seq=1 ttl=64 time=0.069 ms
64 bytes from 10.0.0.10: icmp_seq=2 ttl=64 time=0.040 ms

--- 10.0.0.10 ping statistics ---
2 packets transmitted, 2 received, 0% packet loss, time 203ms
rtt min/avg/max/mdev = 0.040/0.054/0.069/0.014 ms
";
    const LOST: &str = "2 packets transmitted, 0 received, 100% packet loss, time 211ms\n";
    const HALF: &str = "2 packets transmitted, 1 received, 50% packet loss, time 211ms\n";
    const REJECTED: &str = "\
From 10.0.0.10 icmp_seq=1 Destination Port Unreachable
2 packets transmitted, 0 received, +1 errors, 100% packet loss, time 203ms
";
    const REJECTED_V6: &str = "\
From fd00:10::10 icmp_seq=1 Destination unreachable: Port unreachable
2 packets transmitted, 0 received, +1 errors, 100% packet loss, time 203ms
";
    const NO_ROUTE: &str = "\
From 10.0.0.66 icmp_seq=1 Destination Host Unreachable
2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 203ms
";

    fn met(expectation: Expectation, status: i32, output: &str) -> bool {
        let outcome = Outcome { status: Some(status), output: output.to_owned() };
        expectation.judge(&outcome) == Judgement::Met
    }

    #[test]
    fn each_output_of_ping_meets_one_expectation_at_most() {
        use Expectation::{EveryPacketAnswered, EveryPacketLost, PingRejected};
        for (output, status, expected) in [
            (ANSWERED, 0, Some(EveryPacketAnswered)),
            (LOST, 1, Some(EveryPacketLost)),
            (HALF, 0, None),
            (REJECTED, 1, Some(PingRejected)),
            (REJECTED_V6, 1, Some(PingRejected)),
            // Lost by the network, not by policy.
            (NO_ROUTE, 1, None),
            ("ping: connect: Network is unreachable\n", 2, None),
            ("", 0, None),
        ] {
            for expectation in [EveryPacketAnswered, EveryPacketLost, PingRejected] {
                let expected = expected == Some(expectation);
                assert_eq!(met(expectation, status, output), expected, "{expectation}: {output}");
            }
        }
    }

    #[test]
    fn what_happened_instead_is_told() {
        let outcome = Outcome { status: Some(0), output: HALF.to_owned() };
        let instead = "1 of 2 packets were answered, 0 by errors".to_owned();
        assert_eq!(Expectation::EveryPacketLost.judge(&outcome), Judgement::Failed(instead));
        let outcome = Outcome { status: None, output: String::new() };
        let instead = "the command did not end by itself".to_owned();
        assert_eq!(Expectation::TimedOut.judge(&outcome), Judgement::Failed(instead));
    }

    #[test]
    fn curl_is_judged_by_its_exit_status_and_its_words() {
        use Expectation::{Greeted, Refused, TimedOut};
        assert!(met(Greeted, 0, "hello from mysql\n"));
        assert!(!met(Greeted, 0, ""));
        assert!(!met(Greeted, 28, "hello from mysql\ncurl: (28) Time-out\n"));
        assert!(met(TimedOut, 28, "curl: (28) Connection timed out after 1001 milliseconds\n"));
        assert!(!met(TimedOut, 7, "curl: (7) Failed to connect\n"));
        let refused = "* connect to 10.0.0.10 port 80 failed: Connection refused\n";
        assert!(met(Refused, 7, refused));
        assert!(!met(Refused, 7, "* connect to 10.0.0.10 port 80 failed: No route to host\n"));
    }

    #[test]
    fn denied_packets_are_summed_over_rows() {
        let row = |verdict: &str, count: &str| {
            format!("bulkhead_packets_total{{pod=\"mysql\",verdict=\"{verdict}\"}} {count}\n")
        };
        let page = [row("deny", "3"), row("allow", "100"), row("deny", "4")].concat();
        assert_eq!(denied_packets(&page), Some(7));
        assert_eq!(denied_packets(&row("allow", "100")), None);
        assert_eq!(denied_packets(&row("deny", "many")), None);
        assert!(!met(Expectation::Counted, 0, &row("deny", "0")));
        assert!(met(Expectation::Counted, 0, &page));
    }

    #[test]
    fn every_line_of_the_drop_log_names_pod_and_policy() {
        let line = "INFO bulkhead::drops: packet denied pod=\"wordpress-mysql/mysql\" \
                    policies=\"wordpress-mysql/mysql-from-wordpress\"\n";
        assert!(met(Expectation::Logged, 0, line));
        assert!(!met(Expectation::Logged, 0, &(line.to_owned() + "packet denied\n")));
        assert!(!met(Expectation::Logged, 1, ""));
    }
}
