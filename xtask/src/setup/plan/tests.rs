use super::*;
use crate::toolchain::DebianCompiler;

/// A bare Debian with a stable Rust by rustup, asked for everything, as root.
fn bare() -> Facts {
    Facts {
        object: true,
        found: Found {
            nightly: Nightly::Absent,
            linker_on_path: false,
            debian: None,
            own_linker: None,
        },
        llvm_libraries: false,
        source_refused: false,
        packages: vec!["iproute2", "iputils-ping", "curl", "tcpdump", "nftables"],
        components: vec![],
        apt: true,
        rustup: true,
        root: true,
        sudo: false,
    }
}

/// The same machine with the programs that send packets.
fn with_traffic() -> Facts {
    Facts { packages: vec![], ..bare() }
}

fn with_compiler(llvm: u32) -> Facts {
    let mut facts = with_traffic();
    facts.found.debian = Some(DebianCompiler { llvm });
    facts
}

fn install(packages: &[&str]) -> Step {
    Step::Install { packages: packages.iter().map(|&name| name.to_owned()).collect(), sudo: false }
}

fn refusal(facts: &Facts) -> String {
    plan(facts).unwrap_err().to_string()
}

#[test]
fn a_bare_debian_gets_the_compiler_before_its_llvm_is_known() {
    let all =
        ["iproute2", "iputils-ping", "curl", "tcpdump", "nftables", "rustc-web", "rust-web-src"];
    assert_eq!(plan(&bare()).unwrap(), [install(&all)]);
}

#[test]
fn a_compiler_gets_the_libraries_of_its_own_llvm_and_then_a_linker() {
    assert_eq!(
        plan(&with_compiler(22)).unwrap(),
        [install(&["llvm-22-dev"]), Step::BuildLinker { llvm: 22 }]
    );
    assert_eq!(
        plan(&with_compiler(23)).unwrap(),
        [install(&["llvm-23-dev"]), Step::BuildLinker { llvm: 23 }]
    );
}

#[test]
fn libraries_that_are_here_are_not_installed_again() {
    let facts = Facts { llvm_libraries: true, ..with_compiler(22) };
    assert_eq!(plan(&facts).unwrap(), [Step::BuildLinker { llvm: 22 }]);
}

#[test]
fn a_machine_that_lacks_nothing_gets_an_empty_plan() {
    let mut debian = Facts { llvm_libraries: true, ..with_compiler(22) };
    debian.found.own_linker = Some("bpf-linker".into());
    assert_eq!(plan(&debian).unwrap(), []);

    let mut nightly = with_traffic();
    nightly.found.nightly = Nightly::WithSource;
    nightly.found.linker_on_path = true;
    assert_eq!(plan(&nightly).unwrap(), []);
}

#[test]
fn a_nightly_that_lacks_only_its_source_is_offered_it_once() {
    let mut facts = with_traffic();
    facts.found.nightly = Nightly::WithoutSource;
    facts.found.linker_on_path = true;
    assert_eq!(plan(&facts).unwrap(), [Step::AddSource]);

    facts.source_refused = true;
    assert_eq!(plan(&facts).unwrap(), [install(&["rustc-web", "rust-web-src"])]);
}

#[test]
fn a_nightly_without_a_linker_is_left_as_it_is() {
    for nightly in [Nightly::WithoutSource, Nightly::WithSource] {
        let mut facts = with_traffic();
        facts.found.nightly = nightly;
        assert_eq!(plan(&facts).unwrap(), [install(&["rustc-web", "rust-web-src"])]);
    }
}

#[test]
fn what_is_not_asked_for_is_not_brought() {
    let facts = Facts { object: false, ..with_traffic() };
    assert_eq!(plan(&facts).unwrap(), []);
}

#[test]
fn missing_components_are_added_after_all_else() {
    let facts = Facts { components: vec!["rustfmt", "clippy"], ..with_traffic() };
    assert_eq!(
        plan(&facts).unwrap(),
        [
            install(&["rustc-web", "rust-web-src"]),
            Step::AddComponents { components: vec!["rustfmt", "clippy"] }
        ]
    );
    assert!(refusal(&Facts { rustup: false, ..facts }).contains("rustfmt, clippy"));
}

#[test]
fn a_plain_user_installs_by_sudo() {
    let facts = Facts { root: false, sudo: true, ..bare() };
    let [Step::Install { sudo, .. }] = &plan(&facts).unwrap()[..] else {
        panic!("one installation is planned");
    };
    assert!(sudo);
}

#[test]
fn without_root_and_sudo_the_command_is_told() {
    let facts = Facts { root: false, packages: vec!["curl"], object: false, ..bare() };
    let told = refusal(&facts);
    assert!(
        told.contains("apt-get install --yes --no-install-recommends --no-remove curl"),
        "{told}"
    );
}

#[test]
fn another_distribution_is_told_the_way_by_rustup() {
    let told = refusal(&Facts { apt: false, ..with_traffic() });
    assert!(told.contains("rustup toolchain install nightly --component rust-src"), "{told}");
}

#[test]
fn an_llvm_that_the_linker_does_not_know_is_refused_before_anything_is_done() {
    let told = refusal(&with_compiler(99));
    assert!(told.contains("LLVM 99"), "{told}");
}
