//! Tables and properties of host sets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A fleet of three racks: r1n1 … r1n3, r2n1 … r2n3, r10n01; r2 is off, r10n01 is labelled.
fn fleet(group: &Group) -> Option<Vec<HostId>> {
    let none = BTreeMap::new();
    let labels = BTreeMap::from([("os".to_owned(), "linux".to_owned())]);
    let agent = "a1".parse().unwrap();
    let all = ["r1n1", "r1n2", "r1n3", "r2n1", "r2n2", "r2n3", "r10n01"];
    let member = |name: &str| {
        let rack = name.split('n').next().unwrap().parse().unwrap();
        let zone = if name.starts_with("r10") { "z2" } else { "z1" }.parse().unwrap();
        let traits = Traits {
            zone: &zone,
            cluster: &"c1".parse().unwrap(),
            rack: &rack,
            agent: name.starts_with("r1n").then_some(&agent),
            power: if name.starts_with("r2") { PowerState::Off } else { PowerState::On },
            ha: if name.starts_with("r2") { HaName::Fenced } else { HaName::Available },
            status: if name.starts_with("r2") { HostStatus::Down } else { HostStatus::Up },
            labels: if name.starts_with("r10") { &labels } else { &none },
        };
        group.holds(&traits)
    };
    let members: Vec<HostId> = all.into_iter().filter(|name| member(name)).map(|name| name.parse().unwrap()).collect();
    let may_be_empty = matches!(group, Group::State(_) | Group::Ha(_) | Group::Status(_) | Group::Label { .. } | Group::All);
    (may_be_empty || !members.is_empty()).then_some(members)
}

fn resolved(text: &str) -> Result<String, HostSetError> {
    let hosts = HostSet::parse(text)?.resolve(&fleet)?;
    Ok(in_natural_order(&hosts).iter().map(HostId::as_str).collect::<Vec<_>>().join(" "))
}

fn set(names: &str) -> BTreeSet<HostId> {
    names.split_whitespace().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn sets_resolve() {
    for (text, wanted) in [
        ("h1", "h1"),
        ("h1 h2 h1", "h1 h2"),
        (" h1\n\th2 ,h3", "h1 h2 h3"),
        ("r07n[01-03]", "r07n01 r07n02 r07n03"),
        ("r07n[8-11]", "r07n8 r07n9 r07n10 r07n11"),
        ("n[098-100]", "n098 n099 n100"),
        ("n[01-03,4]", "n01 n02 n03 n4"),
        ("n[ 1 - 3 , 5 ]", "n1 n2 n3 n5"),
        ("r[1-2]n[1,5]-bmc", "r1n1-bmc r1n5-bmc r2n1-bmc r2n5-bmc"),
        ("n[0-6/3],m1", "m1 n0 n3 n6"),
        ("n[0-10/20]", "n0"),
        ("n[0-9/3,1-2]", "n0 n1 n2 n3 n6 n9"),
        ("n[1-3]01", "n101 n201 n301"),
        ("n01[0-1]", "n010 n011"),
        ("[1-2]n", "1n 2n"),
        ("[1-2][3-4]", "13 14 23 24"),
        ("n[0]", "n0"),
        ("n[00-01]", "n00 n01"),
        // From left to right, a space begins anew.
        ("n[1-5]!n3", "n1 n2 n4 n5"),
        ("n1!n2,n3", "n1 n3"),
        ("n[1-5]&n[3-9]^n[4-6]", "n3 n6"),
        ("n[1-5] , m[1] ! n3", "m1 n1 n2 n4 n5"),
        ("n[1-3]!n[1-3]", ""),
        ("n1 n[1-3]&n2", "n1 n2"),
        ("n1,n[1-3]&n2", "n2"),
        // Groups.
        ("@all", "r1n1 r1n2 r1n3 r2n1 r2n2 r2n3 r10n01"),
        ("@*!@rack:r2", "r1n1 r1n2 r1n3 r10n01"),
        ("@rack:r[1-2]&@state:off", "r2n1 r2n2 r2n3"),
        ("@zone:z2", "r10n01"),
        ("@cluster:c1^@agent:a1", "r2n1 r2n2 r2n3 r10n01"),
        ("@label:os=linux,x1", "r10n01 x1"),
        ("@label:os=windows", ""),
        ("@state:disabled", ""),
        ("@ha:fenced", "r2n1 r2n2 r2n3"),
        ("@status:down!r2n1", "r2n2 r2n3"),
        ("@status:disconnected @ha:suspect", ""),
        // Wildcards look among known hosts only.
        ("r?n1", "r1n1 r2n1"),
        ("r1*", "r1n1 r1n2 r1n3 r10n01"),
        ("*n*1", "r1n1 r2n1 r10n01"),
        ("*[2-3]", "r1n2 r1n3 r2n2 r2n3"),
        ("r[10-12]n?1", "r10n01"),
        ("r[1-9/2]n*!*3", "r1n1 r1n2"),
        ("x*", ""),
        ("********", "r1n1 r1n2 r1n3 r2n1 r2n2 r2n3 r10n01"),
    ] {
        assert_eq!(resolved(text).as_deref(), Ok(wanted), "{text}");
    }
}

#[test]
fn faults_name_their_place() {
    for (text, at, wanted) in [
        ("", 1, "no host is named"),
        (" \n", 1, "no host is named"),
        ("n1,", 3, "missing after ','"),
        ("n1,,n2", 3, "missing after ','"),
        (",n1", 1, "missing before ','"),
        ("n1 !", 4, "missing after '!'"),
        ("n1 & ^n2", 4, "missing after '&'"),
        ("n[1-", 2, "'[' is not closed"),
        ("n[1-3", 2, "'[' is not closed"),
        ("n[[1]]", 2, "'[' is not closed"),
        ("n[1,2!n3]", 2, "'[' is not closed"),
        ("n1]", 3, "']' was not opened"),
        ("n[3-1]", 3, "\"3-1\" runs backwards"),
        ("n[1,a-b]", 5, "\"a-b\" is not a range"),
        ("n[]", 3, "\"\" is not a range"),
        ("n[1-]", 3, "\"1-\" is not a range"),
        ("n[-1]", 3, "\"-1\" is not a range"),
        ("n[1-5/0]", 3, "\"1-5/0\" is not a range"),
        ("n[1-5/]", 3, "is not a range"),
        ("n[+1]", 3, "is not a range"),
        ("n[1-99999999999999999999]", 3, "is not a range"),
        ("n[08-100]", 3, "different widths"),
        ("n[1-010]", 3, "different widths"),
        ("n[1-99999999]", 1, "more than 100000"),
        ("m1 n[1-1000]x[1-1000]", 4, "more than 100000"),
        ("n[1-60000],m[1-60000]", 12, "more than 100000"),
        ("n[0-999999999999999999]", 1, "more than 100000"),
        ("n[0-999999999999999999]x[0-999999999999999999]x[0-999999999999999999]", 1, "more than 100000"),
        ("N1", 1, "'N' cannot stand here"),
        ("nö", 2, "'ö' cannot stand here"),
        ("ok n(1)", 5, "'(' cannot stand here"),
        ("a -b", 3, "\"-b\" is not a valid host id"),
        ("n1@rack:r1", 3, "an operator is missing before '@'"),
        ("@", 1, "\"@\" is not a group"),
        ("n1,@rck:r1", 4, "\"@rck\" is not a group"),
        ("@allx", 1, "\"@allx\" is not a group"),
        ("@all[1]", 1, "is not a group"),
        ("@rack", 1, "\"@rack\" is not a group"),
        ("@Rack:r1", 1, "is not a group"),
        ("@rack:", 7, "\"\" is not a valid rack id"),
        ("@rack:R1", 7, "\"R1\" is not a valid rack id"),
        ("@rack:r*", 7, "'*' stands for hosts only"),
        ("@rack:r[1-1001]", 7, "more than 1000 groups"),
        ("@state:onn", 8, "\"onn\" is not a power state"),
        ("@ha:dead", 5, "\"dead\" is not an HA state; use disabled, "),
        ("@status:off", 9, "\"off\" is not a host status"),
        ("@label:os", 8, "\"os\" is not a label"),
        ("@all!@rack:r9", 6, "there is no @rack:r9"),
        ("@agent:a9", 1, "there is no @agent:a9"),
    ] {
        let error = resolved(text).unwrap_err();
        assert!(error.at == at && error.to_string().contains(wanted), "{text}: {error}");
        assert!(error.to_string().ends_with(&format!(", at character {at}")), "{error}");
    }
}

#[test]
fn what_a_text_can_cost_is_bounded() {
    let all: Vec<HostId> = (0..50).map(|n| format!("n{n}").parse().unwrap()).collect();
    let fleet = |_: &Group| Some(all.clone());
    for operand in ["n[1-50]", "@all", "x*", "@rack:r7"] {
        let cost = |count| HostSet::parse(&vec![operand; count].join("&")).unwrap().resolve_within(&fleet, 500).err();
        assert_eq!((cost(10), cost(11).map(|error| error.fault)), (None, Some(Fault::TooMuch)), "{operand}");
    }
    // Who is in these is found by looking at every host, however few are.
    let nobody = |group: &Group| Some(if *group == Group::All { all.clone() } else { Vec::new() });
    for operand in ["@state:off", "@ha:fenced", "@status:down", "@label:a=b"] {
        let cost = |count| HostSet::parse(&vec![operand; count].join(",")).unwrap().resolve_within(&nobody, 500).err();
        assert_eq!((cost(10), cost(11).map(|error| error.fault)), (None, Some(Fault::TooMuch)), "{operand}");
    }
    // Each name is compared with every one of these ranges.
    let ranges = |count| HostSet::parse(&format!("n[{}]*", vec!["1"; count].join(","))).unwrap().resolve_within(&fleet, 500).err();
    assert_eq!((ranges(10), ranges(11).map(|error| error.fault)), (None, Some(Fault::TooMuch)));
    // Small operands behind a large one: if each looked at all of that, this would take hours.
    let taken = HostSet::parse(&format!("n[1-99999]{}{}", "!a".repeat(100_000), "^a".repeat(100_001)));
    assert_eq!(taken.unwrap().expand().map(|hosts| hosts.len()), Ok(100_000));
    // As many names as there may be, each for itself, are fine.
    let names: Vec<String> = (0..MAX_HOSTS).map(|n| format!("n{n}")).collect();
    assert_eq!(HostSet::parse(&names.join("\n")).unwrap().expand().unwrap().len(), MAX_HOSTS);
}

#[test]
fn what_is_too_long_for_a_name_is_not_made() {
    let long = |length: usize| "a".repeat(length);
    for (text, at) in [
        (format!("{}[1-9]", long(63)), 1),
        (format!("m1 [100-999]{}", long(61)), 4),
        (format!("{}*", long(64)), 1),
        (format!("@rack:{}[1-9]", long(512)), 7),
        (format!("@label:[1-9]={}", long(511)), 8),
    ] {
        assert_eq!(HostSet::parse(&text), Err(HostSetError { at, fault: Fault::TooLong }), "{text}");
    }
    assert_eq!(HostSet::parse(&format!("{}[1-9]", long(62))).unwrap().expand().unwrap().len(), 9);
    // Some of these are too long, and the shortest is not: that is found out when they are made.
    assert!(HostSet::parse(&format!("{}[1-10]", long(62))).unwrap().expand().is_err());
}

#[test]
fn what_must_be_known_is_told() {
    let groups = |text: &str| HostSet::parse(text).unwrap().groups().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    for (text, wanted) in [
        ("n[1-3]!n2", ""),
        ("n*", "@all"),
        ("@rack:r[1-2]&@state:off @label:a=b ?", "@all @rack:r1 @rack:r2 @state:off @label:a=b"),
        ("@zone:z1,@cluster:c1!@agent:a1^@zone:z1", "@zone:z1 @cluster:c1 @agent:a1"),
    ] {
        assert_eq!(groups(text), wanted, "{text}");
    }
}

#[test]
fn sets_fold() {
    for (names, all, last) in [
        ("", "", ""),
        ("n1", "n1", "n1"),
        ("t1 t2 t3", "t[1-3]", "t[1-3]"),
        ("n9 n10 n11", "n[9-11]", "n[9-11]"),
        ("n09 n10 n11", "n[09-11]", "n[09-11]"),
        ("n099 n100 n1000", "n[099-100,1000]", "n[099-100,1000]"),
        ("n01 n1", "n[1,01]", "n[1,01]"),
        ("n98 n99 n100", "n[98-100]", "n[98-100]"),
        ("n098 n99 n100", "n[99,098,100]", "n[99,098,100]"),
        ("n99 n0100", "n[99,0100]", "n[99,0100]"),
        ("n0 n1 n00", "n[0-1,00]", "n[0-1,00]"),
        ("r07n-0001 r07n-0002", "r07n-[0001-0002]", "r07n-[0001-0002]"),
        ("h1-bmc h2-bmc", "h[1-2]-bmc", "h1-bmc,h2-bmc"),
        ("10.0.0.1 10.0.0.2", "10.0.0.[1-2]", "10.0.0.[1-2]"),
        ("1 2", "[1-2]", "[1-2]"),
        ("foo foo1", "foo,foo1", "foo,foo1"),
        ("a b", "a,b", "a,b"),
        ("dc1n1 dc1n2 dc2n1 dc2n2 dc3n1", "dc[1-2]n[1-2],dc3n1", "dc1n[1-2],dc2n[1-2],dc3n1"),
        ("r1n1 r2n1 r1n2 r3n2 r1n3 r4n3", "r[1-2]n1,r[1,3]n2,r[1,4]n3", "r1n[1-3],r2n1,r3n2,r4n3"),
        (
            "a1b1c1 a1b1c2 a1b2c1 a1b2c2 a2b1c1 a2b1c2 a2b2c1 a2b2c2",
            "a[1-2]b[1-2]c[1-2]",
            "a1b1c[1-2],a1b2c[1-2],a2b1c[1-2],a2b2c[1-2]",
        ),
        (
            "n1234567890123456789 n1234567890123456790",
            "n1234567890123456789,n1234567890123456790",
            "n1234567890123456789,n1234567890123456790",
        ),
    ] {
        let hosts = set(names);
        assert_eq!((fold(&hosts).as_str(), fold_last(&hosts).as_str()), (all, last), "{names}");
    }
}

#[test]
fn people_count() {
    let mut names = ["n10", "n9", "n09", "n1a", "m", "n1", "n", "n1b2", "n1b10", "n100"];
    names.sort_by(|left, right| natural_order(left, right));
    assert_eq!(names, ["m", "n", "n1", "n1a", "n1b2", "n1b10", "n9", "n09", "n10", "n100"]);
}

fn names() -> impl Strategy<Value = BTreeSet<HostId>> {
    let name = prop_oneof!["[ab][0-2]{1,3}", "[ab]0?[0-9]{1,2}[.-]0?[0-9]{1,2}(x[01])?", "[a-z0-9][a-z0-9._-]{0,20}"];
    prop::collection::btree_set(name.prop_map(|name| name.parse().unwrap()), 0..60)
}

proptest! {
    #[test]
    fn what_is_folded_expands_to_the_same(hosts in names()) {
        for text in [fold(&hosts), fold_last(&hosts)] {
            if hosts.is_empty() {
                prop_assert_eq!(text, "");
            } else {
                prop_assert_eq!(&HostSet::parse(&text).unwrap().expand().unwrap(), &hosts, "{}", text);
            }
        }
    }

    #[test]
    fn what_expands_folds_to_the_same_set(text in "[ab]\\[[0-9]{1,2}(,1[0-9])?\\](-\\[[1-3]-[4-9](/[1-3])?\\])?([,!&^]a(\\[[0-9],[0-9]\\]|[0-9]))?") {
        let hosts = HostSet::parse(&text).unwrap().expand().unwrap();
        if !hosts.is_empty() {
            let folded = fold(&hosts);
            prop_assert_eq!(&HostSet::parse(&folded).unwrap().expand().unwrap(), &hosts);
            prop_assert_eq!(fold(&HostSet::parse(&folded).unwrap().expand().unwrap()), folded);
        }
    }

    #[test]
    fn no_text_panics(text in "[@a-c:=\\[\\]0-9,!&^*?/ \\-]{0,40}|\\PC{0,40}") {
        if let Ok(set) = HostSet::parse(&text) {
            drop(set.groups());
            drop(set.resolve(&fleet));
        }
    }

    #[test]
    fn a_pattern_matches_what_it_makes(text in "[ab](\\[[0-9]{1,2}(,0[1-9]-1[0-9](/[1-3])?)?\\]|[0-9.-]){1,4}", other in "[ab][0-9.-]{1,6}") {
        let pattern = &HostSet::parse(&text).unwrap().terms[0].first;
        let What::Hosts(pattern) = &pattern.what else { unreachable!() };
        let names: BTreeSet<String> = pattern.names().collect();
        prop_assert!(names.iter().all(|name| pattern.matches(name)));
        prop_assert_eq!(pattern.matches(&other), names.contains(&other));
    }

    #[test]
    fn algebra_is_that_of_sets(left in names(), right in "[ab]\\[[01]?[0-9](,[0-2][0-9])?\\]") {
        prop_assume!(!left.is_empty());
        let of = |text: &str| HostSet::parse(text).unwrap().expand().unwrap();
        let (all, one) = (fold(&left), of(&right));
        for (operator, wanted) in [(",", &left | &one), ("!", &left - &one), ("&", &left & &one), ("^", &left ^ &one)] {
            prop_assert_eq!(of(&format!("{all}{operator}{right}")), wanted, "{} {} {}", all, operator, right);
        }
    }
}
