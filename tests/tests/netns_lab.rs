//! The lab that the other tests and the demo stand on. Needs root.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    panic::catch_unwind,
    path::Path,
    process::{self, Command},
    time::Duration,
};

use bulkhead::lab::{Lab, Listener, NODE_IPV4, NODE_IPV6, Namespace, Pod, Wiring, remove_all_of};

const DEADLINE: Duration = Duration::from_secs(5);

fn addresses(addresses: [&str; 2]) -> [IpAddr; 2] {
    addresses.map(|address| address.parse().unwrap())
}

fn connect(from: &Namespace, to: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(to, port), DEADLINE);
    let stream = from.enter(connect).unwrap()?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

#[test]
fn everything_in_a_lab_connects_over_both_families() {
    let lab = Lab::new().unwrap();
    let bridged = lab.pod("bridged", &addresses(["10.0.0.10", "fd00:10::a"]), Wiring::Bridge);
    let second = lab.pod("second", &addresses(["10.0.0.11", "fd00:10::b"]), Wiring::Bridge);
    let routed = lab.pod("routed", &addresses(["10.0.1.10", "fd00:11::a"]), Wiring::Routed);
    let pods: [Pod; 3] = [bridged, second, routed].map(Result::unwrap);

    let node_addresses = [IpAddr::V4(NODE_IPV4), IpAddr::V6(NODE_IPV6)];
    for to in &pods {
        let name = to.name();
        let _listener = Listener::start(to.namespace(), name, &[80]).unwrap();
        for address in to.addresses() {
            for from in pods.iter().map(Pod::namespace).chain([lab.node()]) {
                let mut stream = connect(from, *address, 80)
                    .unwrap_or_else(|error| panic!("{} to {address}: {error}", from.name()));
                write!(stream, "GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                assert!(answer.ends_with(&format!("\r\n\r\nhello from {name}\n")), "{answer}");
                if from.name() == lab.node().name() {
                    let own = stream.local_addr().unwrap().ip();
                    assert!(node_addresses.contains(&own), "the node speaks as {own}");
                }
            }
        }
    }
}

#[test]
fn commands_run_inside() {
    let lab = Lab::new().unwrap();
    let pod = lab.pod("pod", &addresses(["10.0.0.10", "fd00:10::a"]), Wiring::Bridge).unwrap();
    for address in ["10.0.0.1", "fd00:10::1"] {
        let mut ping = pod.namespace().command("ping");
        let output = ping.args(["-c", "1", "-W", "5", address]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_flow_lives_until_its_listener_is_dropped() {
    let lab = Lab::new().unwrap();
    let mysql = lab.pod("mysql", &addresses(["10.0.0.10", "fd00:10::a"]), Wiring::Bridge).unwrap();
    let listener = Listener::start(mysql.namespace(), mysql.name(), &[3306, 3307]).unwrap();

    let stream = connect(lab.node(), mysql.addresses()[0], 3306).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "hello from mysql");
    for line in ["one", "two"] {
        writeln!(&stream, "{line}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), line);
    }

    drop(listener);
    assert!(lines.next().is_none_or(|line| line.is_err()), "the connection broke");
    let refused = connect(lab.node(), mysql.addresses()[0], 3306).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    Listener::start(mysql.namespace(), mysql.name(), &[3307]).expect("the port is free again");
}

#[test]
fn nothing_is_left_behind_after_a_panic() {
    let mut names = Vec::new();
    let panicked = catch_unwind(std::panic::AssertUnwindSafe(|| {
        let lab = Lab::new().unwrap();
        let pod = lab.pod("pod", &[], Wiring::Bridge).unwrap();
        names = vec![lab.node().name().to_owned(), pod.namespace().name().to_owned()];
        assert!(names.iter().all(|name| exists(name)));
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(names.len(), 2);
    for name in names {
        assert!(!exists(&name), "{name} is left behind");
    }
}

#[test]
fn a_pod_that_is_refused_leaves_nothing_behind() {
    let lab = Lab::new().unwrap();
    let [ipv4, _] = addresses(["10.0.0.10", "fd00:10::a"]);
    let twice = lab.pod("pod", &[ipv4, ipv4], Wiring::Bridge).unwrap_err();
    assert!(twice.to_string().contains("10.0.0.10"), "{twice:#}");
    let misfit = lab.pod("pod", &[ipv4], Wiring::Routed).unwrap_err();
    assert!(misfit.to_string().contains("does not fit Routed"), "{misfit:#}");
    // The names of the namespace and of the veth are free.
    lab.pod("pod", &[ipv4], Wiring::Bridge).unwrap();
}

#[test]
fn two_labs_do_not_meet() {
    let (one, other) = (Lab::new().unwrap(), Lab::new().unwrap());
    let to = addresses(["10.0.0.10", "fd00:10::a"]);
    let pod = one.pod("mysql", &to, Wiring::Bridge).unwrap();
    let same = other.pod("mysql", &to, Wiring::Bridge).unwrap();
    assert_ne!(pod.namespace().name(), same.namespace().name());
    let _listener = Listener::start(pod.namespace(), "mysql", &[80]).unwrap();
    assert!(connect(one.node(), to[0], 80).is_ok());
    let refused = connect(other.node(), to[0], 80).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let lab = Lab::new().unwrap();
    // Beyond the largest process id (2^22), and this test's own.
    let killed = u32::MAX - process::id();
    let names = ["0-node", "0-pod", "1-node"].map(|name| format!("bh-{killed}-{name}"));
    for name in &names {
        assert!(Command::new("ip").args(["netns", "add", name]).status().unwrap().success());
    }
    assert_eq!(remove_all_of(killed).unwrap(), 3);
    assert!(!names.iter().any(|name| exists(name)));
    assert!(exists(lab.node().name()), "another process's lab is left alone");
}
