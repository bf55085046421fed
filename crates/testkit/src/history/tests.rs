use super::judge;
use super::text::parse;

/// Checks what the judge says, a line a violation; only how each line begins is given.
#[track_caller]
fn check(history: &str, expected: &[&str]) {
    let found: Vec<String> = judge(&parse(history)).iter().map(ToString::to_string).collect();
    let fits = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
    assert!(fits, "{expected:#?} was expected of{history}and this found: {found:#?}");
}

#[test]
fn a_good_history_passes() {
    check(
        "
        a create 1     0..10  => done@5
        a swap 5 2    11..20  => done@6
        a swap 5 3    11..30  => refused
        a read        21..22  => 2@6
        b create 4     0..40  => unknown
        b create 5    50..60  => refused
        a delete 6    61..70  => done
        a read        71..80  => nothing
        a swap 5 9    71..80  => rejected
        list s1 25 6: a=2@6
        list s2 90 9: b=4@7
        watch s1 0: +5 a 1, ~6 a 2, +7 b 4, *7, -8 a 2, *9
        watch s2 5: ~6 a 2, +7 b 4, -8 a 2
        ",
        &[],
    );
}

#[test]
fn what_has_no_answer_may_have_happened_or_not_or_happen_later() {
    let history = |read: &str, events: &str| {
        format!(
            "
        a create 1     0..10  => done@5
        a swap 5 2    11..20  => unknown
        a read        21..30  => 1@5
        a read        31..40  => {read}
        watch s1 0: +5 a 1{events}
        "
        )
    };
    check(&history("1@5", ""), &[]);
    check(&history("2@6", ", ~6 a 2"), &[]);
}

#[test]
fn an_acknowledged_write_is_lost() {
    check(
        "
        a create 1     0..10  => done@5
        b create 2    11..20  => done@6
        watch s1 0: +5 a 1, *9
        ",
        &["acknowledged write lost: client 1 b: create 2"],
    );
    check(
        "
        a create 1     0..10  => done@5
        a delete 5    11..20  => done
        watch s1 0: +5 a 1, *9
        ",
        &["acknowledged write lost: client 1 a: delete @5"],
    );
}

#[test]
fn a_write_that_is_lost_is_seen_without_watches_too() {
    check(
        "
        a create 1     0..10  => done@5
        a swap 5 2    11..20  => done@6
        a read        21..30  => 1@5
        watch s1 0: +5 a 1, ~6 a 2
        ",
        &["no order explains the calls on a:\n  client 2 a: read"],
    );
}

#[test]
fn what_nobody_watched_is_known_by_whoever_looked() {
    let unseen = "
        a create 1  0..10  => done@5
        a swap 5 2  11..20 => unknown
        a swap 6 3  31..40 => done@7
        watch s1 0: +5 a 1
        watch s1 6: ~7 a 3
    ";
    check(&format!("{unseen}look 2@6"), &[]);
    let calls = "no order explains the calls on a";
    check(&format!("{unseen}look 9@6"), &[calls]);
}

#[test]
fn a_stale_read_after_a_delete() {
    check(
        "
        a create 1     0..10  => done@5
        a delete 5    11..20  => done
        a read        21..30  => 1@5
        watch s1 0: +5 a 1, -6 a 1
        ",
        &["no order explains the calls on a:\n  client 2 a: read"],
    );
}

#[test]
fn two_swaps_on_one_state() {
    check(
        "
        a create 1     0..10  => done@5
        a swap 5 2    11..20  => done@6
        a swap 5 3    11..20  => done@7
        watch s1 0: +5 a 1, ~6 a 2, ~7 a 3
        ",
        &["compare-and-swap went through on the wrong state", "no order explains the calls on a"],
    );
}

#[test]
fn refused_although_the_state_allowed_it() {
    check(
        "
        a create 1     0..10  => done@5
        a swap 5 2    11..20  => refused
        watch s1 0: +5 a 1
        ",
        &["no order explains the calls on a"],
    );
}

#[test]
fn refused_and_yet_done() {
    check(
        "
        a create 1     0..10  => refused
        watch s1 0: +5 a 1
        ",
        &["nobody did this", "no order explains the calls on a"],
    );
}

#[test]
fn revisions_shared_or_against_time() {
    check(
        "
        a create 1     0..10  => done@6
        b create 2    11..20  => done@5
        watch s1 0: +5 b 2, +6 a 1
        ",
        &["acknowledged first, but not older"],
    );
    check(
        "
        a create 1     0..10  => done@5
        b create 2     0..20  => done@5
        watch s1 0: +5 a 1
        watch s2 0: +5 b 2
        ",
        &[
            "two things happened at revision 5",
            "acknowledged write lost: client 1 b",
            "two things happened at revision 5",
        ],
    );
}

#[test]
fn a_deletion_that_nobody_asked_for() {
    check(
        "
        a create 1     0..10  => done@5
        watch s1 0: +5 a 1, -6 a 1
        ",
        &["nobody did this"],
    );
}

#[test]
fn a_watch_goes_back_or_repeats() {
    let history = |events: &str| {
        format!(
            "
        a create 1     0..10  => done@5
        b create 2     0..10  => done@6
        watch s1 0: {events}
        "
        )
    };
    check(&history("+6 b 2, +5 a 1"), &["watch at s1 went from 6 to 5"]);
    check(&history("+5 a 1, +6 b 2, +6 b 2"), &["watch at s1 went from 6 to 6"]);
    check(&history("*6, +5 a 1, +6 b 2"), &["watch at s1 went from 6", "watch at s1 went from 6"]);
}

#[test]
fn a_watch_leaves_something_out() {
    let history = |events: &str| {
        format!(
            "
        a create 1     0..10  => done@5
        b create 2     0..10  => done@6
        c create 3     0..10  => done@7
        watch s1 0: +5 a 1, +6 b 2, +7 c 3
        watch s2 {events}
        "
        )
    };
    check(&history("0: +5 a 1, +7 c 3"), &["watch at s2 left out Event { revision: 6"]);
    check(&history("5: *6"), &["watch at s2 left out Event { revision: 6"]);
    check(&history("6: +7 c 3"), &[]);
}

#[test]
fn a_list_that_is_stale_or_was_never_so() {
    let history = |list: &str| {
        format!(
            "
        a create 1     0..10  => done@5
        b create 2     0..10  => done@6
        watch s1 0: +5 a 1, +6 b 2
        list s1 {list}
        "
        )
    };
    check(&history("20 5: a=1@5"), &["list of s1 is of 5, though 6 was acknowledged"]);
    check(&history("20 6: a=1@5"), &["list of s1 is not the state at 6: b"]);
    check(&history("20 6: a=1@5, b=1@6"), &["list of s1 is not the state at 6: b"]);
    check(&history("5 5: a=1@5"), &[]);
}

#[test]
fn a_watch_that_never_catches_up() {
    let mut history = parse("watch s1 0: *3");
    history.behind.push(("s1".to_owned(), 3));
    let found = judge(&history);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].to_string().starts_with("watch at s1 got no further than 3"));
}

#[test]
fn many_calls_without_answers_are_decided() {
    let mut text = String::from("a create 1 0..10 => done@5\n");
    for value in 2..150 {
        text += &format!("a swap 5 {value} 11..20 => unknown\na read 21..30 => 1@5\n");
    }
    text += "a read 40..50 => 70@9\nwatch s1 0: +5 a 1, ~9 a 70";
    check(&text, &[]);
}

#[test]
fn what_happened_while_all_watches_were_cut_off_is_known_from_lists() {
    let history = |list: &str, writes: &str| {
        format!(
            "
        a create 1     0..10  => done@5
        b create 2     0..10  => done@6
        c create 3     0..10  => done@7
        a swap 5 4    11..20  => unknown
        b delete 6    11..20  => unknown
        {writes}
        a swap 8 5    31..40  => done@12
        list s1 25 10: {list}
        list s1 45 12: a=5@12, c=3@7
        watch s1 0: +5 a 1, +6 b 2, +7 c 3
        watch s2 9: ~12 a 5
        "
        )
    };
    check(&history("a=4@8, c=3@7", ""), &[]);
    check(&history("a=4@8, c=3@7", "d create 6 11..20 => done@9"), &[]);
    let wrong = "list of s1 is not the state at 10:";
    check(&history("a=4@8, c=9@7", ""), &[&format!("{wrong} c")]);
    let found = [&format!("{wrong} a"), "no order explains the calls on a"];
    check(&history("a=4@10, c=3@7", ""), &found);
}
