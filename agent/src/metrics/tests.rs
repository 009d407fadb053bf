//! The page as a whole, and its description in `docs/metrics.md`.

use std::{collections::BTreeSet, sync::Mutex};

use anyhow::{anyhow, bail};
use bulkhead_common::verdict::{AllowReason, DropReason, Verdict};

use super::*;
use crate::{dataplane::flows::FlowCount, policy::model::ObjectKey};

/// Answers with its rows, or fails where there are none.
struct Rows(Mutex<Option<Vec<PacketCount>>>, Mutex<Option<[FlowCount; 2]>>);

impl CounterSource for Arc<Rows> {
    fn read(&self) -> anyhow::Result<Vec<PacketCount>> {
        match &*self.0.lock().unwrap() {
            Some(rows) => Ok(rows.clone()),
            None => bail!("map COUNTERS: no such file"),
        }
    }

    fn flows(&self) -> anyhow::Result<[FlowCount; 2]> {
        self.1.lock().unwrap().ok_or_else(|| anyhow!("map FLOWS_V4: no such file"))
    }
}

fn row(pod: &str, direction: Direction, verdict: Verdict, packets: u64) -> PacketCount {
    let pod = ObjectKey::new("shop", pod);
    PacketCount { pod, direction, verdict, packets, bytes: packets * 100 }
}

fn metrics(rows: Vec<PacketCount>) -> (Metrics, Arc<Rows>) {
    let flows = [
        FlowCount { entries: 90, made: 100, evicted: 10 },
        FlowCount { entries: 2, made: 2, evicted: 0 },
    ];
    let rows = Arc::new(Rows(Mutex::new(Some(rows)), Mutex::new(Some(flows))));
    (Metrics::new(Arc::clone(&rows)), rows)
}

/// The page's families in order, the samples of each (which the registry keeps in a hash map)
/// sorted. Histograms have an order of their own.
fn sorted(page: &str) -> String {
    let mut lines = page.lines().map(str::to_owned).collect::<Vec<_>>();
    for run in lines.chunk_by_mut(|a, b| !a.starts_with('#') && !b.starts_with('#')) {
        if !run[0].contains("_duration_") {
            run.sort();
        }
    }
    lines.join("\n") + "\n"
}

/// Without the lines that explain.
fn samples(page: &str) -> Vec<&str> {
    page.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn the_page_of_a_small_node_is_this() {
    use Direction::{Egress, Ingress};
    let (metrics, _) = metrics(vec![
        row("web", Egress, Verdict::Allow(AllowReason::NotIsolated), 7),
        row("db", Ingress, Verdict::Deny(DropReason::NotAllowed), 2),
        row("db", Ingress, Verdict::Allow(AllowReason::Rule), 5),
    ]);
    metrics.set_source(true, true);
    metrics.set_rejected_objects(ProblemKind::NetworkPolicy, 1);
    metrics.set_endpoints(EndpointState::Attached, 2);
    metrics.set_isolated_endpoints(Ingress, 1);
    metrics.set_mixed_services(1);
    metrics.set_map(Map::Rules, 12, 262_144);
    metrics.count_drop_events(DropEventOutcome::Logged, 1);
    metrics.count_drop_events(DropEventOutcome::Logged, 1);
    metrics.count_reconcile(true, Duration::from_millis(2));
    metrics.count_reconcile(false, Duration::from_secs(20));

    let expected = include_str!("page.txt").replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(sorted(&metrics.page().unwrap()), expected);
}

#[test]
fn ordinary_denials_of_pods_are_shown_at_zero_and_all_else_once_it_happened() {
    use Direction::{Egress, Ingress};
    let (metrics, _) = metrics(vec![
        row("db", Ingress, Verdict::Deny(DropReason::NotAllowed), 0),
        row("db", Egress, Verdict::Deny(DropReason::NotAllowed), 0),
        row("", Ingress, Verdict::Deny(DropReason::NotAllowed), 0),
        row("db", Ingress, Verdict::Deny(DropReason::Malformed), 0),
        row("db", Ingress, Verdict::Allow(AllowReason::Rule), 0),
        row("db", Ingress, Verdict::Allow(AllowReason::Reply), 1),
    ]);
    let page = metrics.page().unwrap();
    let shown = samples(&page).into_iter().filter(|line| line.starts_with("bulkhead_packets"));
    let label = "bulkhead_packets_total{namespace=\"shop\",pod=\"db\",direction=";
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            format!("{label}\"egress\",verdict=\"deny\",reason=\"not_allowed\"}} 0"),
            format!("{label}\"ingress\",verdict=\"allow\",reason=\"reply\"}} 1"),
            format!("{label}\"ingress\",verdict=\"deny\",reason=\"not_allowed\"}} 0"),
        ]
    );
}

#[test]
fn rows_with_the_same_labels_are_one_series() {
    let deny = Verdict::Deny(DropReason::NotAllowed);
    let (metrics, _) = metrics(vec![
        row("db", Direction::Ingress, deny, 2),
        row("db", Direction::Ingress, deny, 3),
    ]);
    let page = metrics.page().unwrap();
    let series = samples(&page)
        .into_iter()
        .filter(|line| line.starts_with("bulkhead_packets") || line.starts_with("bulkhead_bytes"))
        .map(|line| line.rsplit_once(' ').unwrap().1)
        .collect::<Vec<_>>();
    assert_eq!(series, ["5", "500"]);
}

#[test]
fn a_name_with_quotes_cannot_break_the_page() {
    let deny = Verdict::Deny(DropReason::NotAllowed);
    let (metrics, _) = metrics(vec![row("a\"} 1\nb\\", Direction::Ingress, deny, 1)]);
    let page = metrics.page().unwrap();
    assert!(page.contains(r#"pod="a\"} 1\nb\\""#), "{page}");
}

#[test]
fn unreadable_counters_are_an_error_and_not_an_empty_page() {
    let (metrics, rows) = metrics(vec![]);
    *rows.0.lock().unwrap() = None;
    for _ in 0..2 {
        assert_eq!(
            format!("{:#}", metrics.page().unwrap_err()),
            "counters cannot be read from the kernel: map COUNTERS: no such file"
        );
    }
    *rows.0.lock().unwrap() = Some(vec![]);
    let page = metrics.page().unwrap();
    assert!(page.contains("\nbulkhead_scrape_errors_total 2\n"), "{page}");
}

#[test]
fn flows_that_cannot_be_counted_are_an_error_and_not_a_zero() {
    let (metrics, rows) = metrics(vec![]);
    *rows.1.lock().unwrap() = None;
    assert_eq!(
        format!("{:#}", metrics.page().unwrap_err()),
        "counters cannot be read from the kernel: map FLOWS_V4: no such file"
    );
}

/// Every metric's name as queries use it.
fn names_on_the_page() -> BTreeSet<String> {
    let (metrics, _) = metrics(vec![]);
    metrics.set_map(Map::Rules, 0, 1);
    let page = metrics.page().unwrap();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, "info") => format!("{name}_info"),
            (name, _) => name.to_owned(),
        })
        .collect()
}

#[test]
fn the_document_has_a_section_for_every_metric_and_for_no_other() {
    let document = include_str!("../../../docs/metrics.md");
    let sections = document
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.split(['`', '{']).next())
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let names = names_on_the_page();
    assert_eq!(sections.iter().cloned().collect::<BTreeSet<_>>(), names);
    assert_eq!(sections.len(), names.len(), "a section stands twice");
}

#[test]
fn the_document_mentions_no_metric_that_does_not_exist() {
    let document = include_str!("../../../docs/metrics.md");
    let names = names_on_the_page();
    for word in document.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word);
        if word.starts_with("bulkhead_") {
            assert!(names.contains(word) || names.contains(base), "no metric is called {word}");
        }
    }
}

#[test]
fn the_document_explains_every_reason_and_every_word_of_a_label() {
    let document = include_str!("../../../docs/metrics.md");
    let words = (AllowReason::ALL.iter().map(|reason| reason.as_str()))
        .chain(DropReason::ALL.iter().map(|reason| reason.as_str()))
        .chain(ProblemKind::ALL.iter().map(|kind| kind.as_str()))
        .chain(EndpointState::ALL.iter().map(|state| state.as_str()))
        .chain(Map::ALL.iter().map(|map| map.as_str()))
        .chain(DropEventOutcome::ALL.iter().map(|outcome| outcome.as_str()))
        .chain(flows::FAMILIES);
    for word in words {
        assert!(document.contains(&format!("| `{word}` |")), "no row explains `{word}`");
    }
}
