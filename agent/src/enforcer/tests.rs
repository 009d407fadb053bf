//! State, links and data plane together, on maps in memory.

use anyhow::bail;
use bulkhead_common::{
    decide::{Hook, decide},
    frames::{Frame, Linear, tcp},
    verdict::Verdict,
};

use super::*;
use crate::{
    dataplane::fake::FakeKernel,
    endpoint::Doubt,
    links::Veth,
    policy::builders::{ip, key, pod, pods, policy, rule, tcp as port},
};

/// A kernel that refuses what it is told to.
#[derive(Default)]
struct Kernel {
    fake: FakeKernel,
    refuses: Option<fn(&Op) -> bool>,
}

impl Execute for Kernel {
    fn execute(&mut self, op: &Op) -> anyhow::Result<()> {
        if self.refuses.is_some_and(|refuses| refuses(op)) {
            bail!("no");
        }
        self.fake.execute(op)
    }

    fn exists(&self, _ifindex: u32) -> bool {
        false
    }
}

const DB: u32 = 3;
const WEB: u32 = 4;
const NEW: u32 = 5;

fn links(veths: &[(u32, &str)]) -> LinkState {
    let veth = |ifindex, address| Veth {
        ifindex,
        name: format!("veth{ifindex}"),
        peer_addresses: BTreeSet::from([ip(address)]),
    };
    let veths = veths.iter().map(|(ifindex, address)| (*ifindex, veth(*ifindex, address)));
    LinkState { veths: veths.collect(), ..LinkState::default() }
}

/// Pods `shop/db` and `shop/web`, each behind its interface; `db` admits `web` on TCP 3306.
fn shop() -> Enforcer<Kernel> {
    let options = Options {
        node: None,
        deny_action: DenyAction::Drop,
        check_source: true,
        deny_egress_to_node: false,
    };
    let mut enforcer = Enforcer::new(&options, Kernel::default());
    let mut only_web = policy("shop/db", "app=db");
    only_web.ingress = Some(vec![rule(&[pods("app=web")], &[port(3306)])]);
    for change in [
        Change::PodApplied(pod("shop/db", "app=db", &["10.0.0.3"])),
        Change::PodApplied(pod("shop/web", "app=web", &["10.0.0.4"])),
        Change::PolicyApplied(only_web),
        Change::SourceComplete(true),
    ] {
        enforcer.apply(change);
    }
    enforcer.set_links(links(&[(DB, "10.0.0.3"), (WEB, "10.0.0.4")]));
    assert!(enforcer.reconcile(), "{:?}", enforcer.problems());
    enforcer
}

/// The verdict on a TCP SYN towards the pod behind an interface; `None`: it has no programs.
fn meets(enforcer: &Enforcer<Kernel>, ifindex: u32, from: &str, to: &str) -> Option<Verdict> {
    let kernel = &enforcer.kernel.fake;
    kernel.attached.get(&ifindex)?;
    let hook = Hook {
        direction: Direction::Ingress,
        ifindex,
        from_own_node: false,
        from_itself: false,
        vlan_tagged: false,
    };
    let at = |address, port| std::net::SocketAddr::new(ip(address), port);
    let frame = Frame::tcp(at(from, 40_000), at(to, 3306), tcp::SYN).bytes();
    Some(decide(&hook, &kernel.endpoints[&ifindex], &Linear(&frame), kernel))
}

fn admits(enforcer: &Enforcer<Kernel>, ifindex: u32, from: &str, to: &str) -> Option<bool> {
    meets(enforcer, ifindex, from, to).map(Verdict::is_allow)
}

#[test]
fn a_policy_holds_at_the_interface_of_the_pod_that_it_selects() {
    let enforcer = shop();
    assert_eq!(admits(&enforcer, DB, "10.0.0.4", "10.0.0.3"), Some(true));
    assert_eq!(admits(&enforcer, DB, "10.0.0.9", "10.0.0.3"), Some(false));
    assert_eq!(admits(&enforcer, WEB, "10.0.0.9", "10.0.0.4"), Some(true));
    assert_eq!(enforcer.unenforced(), BTreeMap::new());
}

#[test]
fn a_policy_that_is_gone_opens_and_one_that_is_back_closes() {
    let mut enforcer = shop();
    let db = enforcer.index.policies()[&key("shop/db")].clone();
    enforcer.apply(Change::PolicyDeleted(key("shop/db")));
    assert!(enforcer.reconcile());
    assert_eq!(admits(&enforcer, DB, "10.0.0.9", "10.0.0.3"), Some(true));
    enforcer.apply(Change::PolicyApplied(db));
    assert!(enforcer.reconcile());
    assert_eq!(admits(&enforcer, DB, "10.0.0.9", "10.0.0.3"), Some(false));
}

#[test]
fn a_pod_that_is_gone_leaves_its_interface_closed() {
    let mut enforcer = shop();
    enforcer.apply(Change::PodDeleted(key("shop/web")));
    assert!(enforcer.reconcile());
    assert_eq!(admits(&enforcer, WEB, "10.0.0.9", "10.0.0.4"), Some(false));
    assert_eq!(
        enforcer.bindings().get(WEB),
        Some(&Binding::Closed(Doubt::PodGone(key("shop/web"))))
    );
    assert_eq!(admits(&enforcer, DB, "10.0.0.4", "10.0.0.3"), Some(false), "it is no peer");
}

#[test]
fn an_interface_that_cannot_be_attached_to_holds_up_no_other_and_is_named() {
    let mut enforcer = shop();
    enforcer.kernel.refuses = Some(|op| matches!(op, Op::Attach { ifindex: NEW }));
    enforcer.apply(Change::PodApplied(pod("shop/new", "app=db", &["10.0.0.5"])));
    enforcer.apply(Change::PolicyDeleted(key("shop/db")));
    enforcer.set_links(links(&[(DB, "10.0.0.3"), (WEB, "10.0.0.4"), (NEW, "10.0.0.5")]));
    assert!(!enforcer.reconcile());
    assert_eq!(admits(&enforcer, DB, "10.0.0.9", "10.0.0.3"), Some(true), "the policy is gone");
    let why = Unenforced::Unattached("no".to_owned());
    assert_eq!(enforcer.unenforced(), BTreeMap::from([(key("shop/new"), why)]));
    enforcer.kernel.refuses = None;
    assert!(enforcer.reconcile());
    assert_eq!(enforcer.unenforced(), BTreeMap::new());
}

#[test]
fn a_map_that_takes_no_more_keeps_the_last_policy_and_closes_what_is_new() {
    let mut enforcer = shop();
    enforcer.kernel.refuses = Some(|op| matches!(op, Op::SetRule { .. }));
    let mut more = policy("shop/more", "app=db");
    more.ingress = Some(vec![rule(&[pods("app=other")], &[port(3306)])]);
    enforcer.apply(Change::PolicyApplied(more));
    enforcer.apply(Change::PodApplied(pod("shop/new", "app=other", &["10.0.0.5"])));
    enforcer.set_links(links(&[(DB, "10.0.0.3"), (WEB, "10.0.0.4"), (NEW, "10.0.0.5")]));
    assert!(!enforcer.reconcile());
    assert_eq!(enforcer.problems().reconcile.as_deref(), Some("no"));
    assert_eq!(admits(&enforcer, DB, "10.0.0.4", "10.0.0.3"), Some(true), "as before");
    assert_eq!(admits(&enforcer, DB, "10.0.0.5", "10.0.0.3"), Some(false), "as before");
    assert_eq!(admits(&enforcer, NEW, "10.0.0.9", "10.0.0.5"), Some(false), "closed meanwhile");
    enforcer.kernel.refuses = None;
    assert!(enforcer.reconcile());
    assert_eq!(admits(&enforcer, DB, "10.0.0.5", "10.0.0.3"), Some(true));
    assert_eq!(admits(&enforcer, NEW, "10.0.0.9", "10.0.0.5"), Some(true), "not isolated");
}

#[test]
fn while_the_source_is_incomplete_every_pod_is_closed() {
    let mut enforcer = shop();
    enforcer.apply(Change::SourceComplete(false));
    assert!(enforcer.reconcile());
    assert_eq!(admits(&enforcer, DB, "10.0.0.4", "10.0.0.3"), Some(false));
    assert_eq!(admits(&enforcer, WEB, "10.0.0.9", "10.0.0.4"), Some(false));
}
