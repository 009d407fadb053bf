use super::*;
use crate::policy::builders::{expression, labels, selector};

fn of(key: &str, operator: &str, values: &[&str]) -> Expression {
    Expression {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    }
}

#[test]
fn each_operator_holds_as_it_does_for_the_api_server() {
    // Columns: without the key, with the value "", with the value "1", with the value "2".
    let table = [
        (Selector::everything(), [true, true, true, true]),
        (selector("x=1"), [false, false, true, false]),
        (selector("x="), [false, true, false, false]),
        (expression("x", "In", &["1"]), [false, false, true, false]),
        (expression("x", "In", &["1", ""]), [false, true, true, false]),
        (expression("x", "NotIn", &["1"]), [true, true, false, true]),
        (expression("x", "NotIn", &["1", ""]), [true, false, false, true]),
        (expression("x", "Exists", &[]), [false, true, true, true]),
        (expression("x", "DoesNotExist", &[]), [true, false, false, false]),
    ];
    for (selector, expected) in table {
        let matched = ["y=1", "x=,y=1", "x=1", "x=2"].map(|text| selector.matches(&labels(text)));
        assert_eq!(matched, expected, "{selector}");
    }
}

#[test]
fn every_requirement_must_hold() {
    let selector =
        Selector::new(labels("app=web"), [of("tier", "In", &["a", "b"]), of("x", "Exists", &[])]);
    let selector = selector.unwrap();
    assert!(selector.matches(&labels("app=web,tier=a,x=,other=1")));
    assert!(!selector.matches(&labels("app=db,tier=a,x=")));
    assert!(!selector.matches(&labels("app=web,tier=c,x=")));
    assert!(!selector.matches(&labels("app=web,tier=a")));
}

#[test]
fn two_requirements_on_one_key_must_both_hold() {
    let selector = Selector::new(labels("x=1"), [of("x", "In", &["2"])]).unwrap();
    assert!(!selector.matches(&labels("x=1")));
    assert!(!selector.matches(&labels("x=2")));
}

#[test]
fn order_repetition_and_spelling_leave_no_trace() {
    let one = Selector::new(labels("x=1,y=2"), [of("z", "In", &["a", "b"])]).unwrap();
    let other = Selector::new(
        labels("y=2"),
        [of("z", "In", &["b", "a", "b"]), of("x", "In", &["1"]), of("x", "In", &["1"])],
    );
    assert_eq!(other.unwrap(), one);
    assert_eq!(Selector::new([], []).unwrap(), Selector::everything());
}

#[test]
fn a_selector_is_displayed_in_the_syntax_of_kubectl() {
    let selector = Selector::new(
        labels("app=web"),
        [
            of("tier", "In", &["b", "a"]),
            of("x", "DoesNotExist", &[]),
            of("y", "Exists", &[]),
            of("z", "NotIn", &["1"]),
            of("z", "NotIn", &["2", "3"]),
        ],
    );
    assert_eq!(selector.unwrap().to_string(), "app=web,tier in (a,b),!x,y,z!=1,z notin (2,3)");
    assert_eq!(Selector::everything().to_string(), "");
}

#[test]
fn what_the_api_server_refuses_is_refused_with_key_and_remedy() {
    let table = [
        (of("", "Exists", &[]), "empty key: name the label"),
        (of("k", "in", &["1"]), r#""k": unknown operator "in": use In, NotIn, Exists"#),
        (of("k", "In", &[]), r#""k": In needs at least one entry in values: add one"#),
        (of("k", "NotIn", &[]), r#""k": NotIn needs at least one entry in values: add one"#),
        (of("k", "Exists", &[""]), r#""k": Exists takes no values: remove them"#),
        (of("k", "DoesNotExist", &["1"]), r#""k": DoesNotExist takes no values: remove them"#),
    ];
    for (expression, expected) in table {
        let error = Selector::new(labels("app=web"), [expression]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(Selector::new(labels("=1"), []), Err(SelectorError::EmptyKey));
}
