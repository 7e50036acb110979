use proptest::prelude::*;

use super::*;

const MINUTE_MS: u64 = 60_000;

fn account(limits: Limits) -> Account {
    Account::new(limits, Spent::default(), Tick(0))
}

fn budget(tokens: u64, window_ms: Option<u64>) -> Limits {
    Limits { budget: Some(Budget { tokens, window_ms }), ..Limits::default() }
}

#[test]
fn twelve_requests_of_a_thousand_tokens_under_six_thousand() {
    let mut account = account(budget(6_000, None));
    let mut passed = 0;
    for n in 0..12 {
        // Each holds more than it uses, as a bound does.
        match account.reserve(1_400, 1_000, Tick(n)) {
            Ok(hold) => account.settle(hold, 1_000, Tick(n)),
            Err(denied) => {
                assert_eq!(denied, Denied::Spent { after_ms: None });
                continue;
            }
        }
        passed += 1;
    }
    assert_eq!((passed, account.claims(Tick(99)).spent), (6, 6_000));
}

#[test]
fn requests_at_once_hold_what_they_may_use() {
    let mut account = account(budget(6_000, None));
    let mut holds = Vec::new();
    let mut denied = 0;
    for _ in 0..12 {
        match account.reserve(1_000, 1_000, Tick(0)) {
            Ok(hold) => holds.push(hold),
            Err(why) => {
                assert_eq!(why, Denied::Held);
                denied += 1;
            }
        }
    }
    assert_eq!((holds.len(), denied), (6, 6));
    // Those that used nothing give back all of it.
    holds.into_iter().for_each(|hold| account.settle(hold, 0, Tick(1)));
    assert_eq!(account.claims(Tick(1)), Claims::default());
    assert_eq!(account.open(), 0);
}

#[test]
fn what_was_spent_goes_over_into_another_window() {
    let (hour, day) = (3_600_000, 24 * 3_600_000);
    let begun = 1_000 * day;
    for (from, to) in [(hour, day), (day, hour)] {
        let mut account = Account::new(budget(100, Some(from)), Spent::default(), Tick(begun));
        let hold = account.reserve(60, 60, Tick(begun)).expect("unused");
        account.settle(hold, 60, Tick(begun));
        account.relimit(budget(100, Some(to)), Tick(begun + 1));
        assert_eq!(account.claims(Tick(begun + 1)).spent, 60, "{from} to {to}");
        let long_after = Tick(begun + 2 * to);
        assert_eq!(account.claims(long_after).spent, 0, "{from} to {to}");
    }
}

#[test]
fn a_window_rolls() {
    let hour = 3_600_000;
    let mut account = account(budget(100, Some(hour)));
    let hold = account.reserve(100, 100, Tick(0)).expect("unused");
    account.settle(hold, 100, Tick(0));
    let Err(Denied::Spent { after_ms: Some(after_ms) }) = account.reserve(1, 1, Tick(10)) else {
        panic!("spent")
    };
    assert!((hour - 10..=hour + hour / 60).contains(&after_ms), "{after_ms}");
    assert!(account.reserve(1, 1, Tick(10 + after_ms - 1)).is_err());
    assert!(account.reserve(1, 1, Tick(10 + after_ms)).is_ok());
}

#[test]
fn a_minute_gives_its_requests_and_no_more() {
    let limits = Limits { requests_per_minute: Some(60), ..Limits::default() };
    let mut account = account(limits);
    let passed = (0..100).filter(|_| account.reserve(0, 0, Tick(5)).is_ok()).count();
    assert_eq!(passed, 60);
    assert_eq!(account.reserve(0, 0, Tick(5)), Err(Denied::Requests { after_ms: 1_000 }));
    assert!(account.reserve(0, 0, Tick(1_005)).is_ok());
    let rate = account.request_rate(Tick(1_005)).expect("limited");
    assert_eq!((rate.limit, rate.remaining, rate.full_after_ms), (60, 0, MINUTE_MS));
}

#[test]
fn a_minute_of_tokens_is_charged_what_was_used() {
    let limits = Limits { tokens_per_minute: Some(1_000), ..Limits::default() };
    let mut account = account(limits);
    let hold = account.reserve(5_000, 900, Tick(0)).expect("fits");
    assert_eq!(account.token_rate(Tick(0)).expect("limited").remaining, 100);
    account.settle(hold, 1_500, Tick(0));
    // 500 over: half a minute of debt, then the wait for its own.
    assert_eq!(account.reserve(0, 10, Tick(0)), Err(Denied::Tokens { after_ms: 30_600 }));
    // More than a minute gives passes once the minute is unused.
    assert!(account.reserve(0, 9_999, Tick(30_600)).is_err());
    assert!(account.reserve(0, 9_999, Tick(90_000)).is_ok());
}

#[test]
fn so_many_at_once_and_not_one_more() {
    let mut account = account(Limits { concurrency: Some(2), ..Limits::default() });
    let first = account.reserve(0, 0, Tick(0)).expect("free");
    let _second = account.reserve(0, 0, Tick(0)).expect("free");
    assert_eq!(account.reserve(0, 0, Tick(0)), Err(Denied::Concurrency));
    account.settle(first, 0, Tick(0));
    assert!(account.reserve(0, 0, Tick(0)).is_ok());
}

#[test]
fn new_limits_forget_nothing() {
    let limits = |rpm| Limits { requests_per_minute: Some(rpm), ..budget(100, None) };
    let mut account = account(limits(10));
    for _ in 0..4 {
        let hold = account.reserve(10, 10, Tick(0)).expect("fits");
        account.settle(hold, 10, Tick(0));
    }
    account.relimit(limits(5), Tick(0));
    assert_eq!(account.request_rate(Tick(0)).expect("limited").remaining, 1);
    assert_eq!(account.claims(Tick(0)).spent, 40);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask {
        bound: u64,
    },
    /// Ends one of the open requests with a share of its bound, in percent.
    End {
        which: usize,
        percent: u64,
    },
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..3_000).prop_map(|bound| Step::Ask { bound }),
        (0usize..8, 0u64..=100).prop_map(|(which, percent)| Step::End { which, percent }),
        (0u64..5_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    /// No window of time sees more than the budget and less than one request more; what was
    /// reserved comes back; what is open is counted.
    #[test]
    fn never_overspends_and_refunds(
        cap in 1u64..20_000,
        window_ms in prop_oneof![Just(None), (60u64..30_000).prop_map(Some)],
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut account = account(budget(cap, window_ms));
        let mut now = Tick(1_000);
        let mut open: Vec<(Hold, u64)> = Vec::new();
        let mut spent: Vec<(Tick, u64)> = Vec::new();
        let mut largest = 0;
        for step in steps {
            match step {
                Step::Ask { bound } => if let Ok(hold) = account.reserve(bound, bound, now) {
                    prop_assert!(hold.grant().is_some_and(|grant| grant.tokens <= bound));
                    largest = largest.max(bound);
                    open.push((hold, bound));
                },
                Step::End { which, percent } => if !open.is_empty() {
                    let (hold, bound) = open.swap_remove(which % open.len());
                    let used = bound * percent / 100;
                    account.settle(hold, used, now);
                    spent.push((now, used));
                },
                Step::Wait { ms } => now = Tick(now.0 + ms),
            }
            let grants = open.iter().filter_map(|(hold, _)| hold.grant());
            let held: u64 = grants.map(|grant| grant.tokens).sum();
            let in_window = spent.iter().filter(|(at, _)| match window_ms {
                Some(window) => now.since_ms(*at) < window,
                None => true,
            });
            let in_window: u64 = in_window.map(|(_, used)| used).sum();
            let claims = account.claims(now);
            prop_assert_eq!(claims.held, held);
            prop_assert!(claims.spent >= in_window, "{} < {in_window}", claims.spent);
            prop_assert!(in_window < cap + largest.max(1), "{in_window} of {cap}");
            prop_assert_eq!(account.open() as usize, open.len());
        }
        for (hold, _) in open {
            account.settle(hold, 0, now);
        }
        prop_assert_eq!(account.claims(now).held, 0);
        prop_assert!(!account.claims(now).has_clipped);
    }

    /// Over any stretch of time a minute's rate and what it has saved up is all there is.
    #[test]
    fn a_rate_is_kept(
        rate in 1u32..500,
        gaps in prop::collection::vec(0u64..2_000, 1..300),
    ) {
        let limits = Limits { requests_per_minute: Some(rate), ..Limits::default() };
        let mut account = account(limits);
        let (mut now, mut passed) = (0, 0u64);
        for gap in gaps {
            now += gap;
            passed += u64::from(account.reserve(0, 0, Tick(now)).is_ok());
            prop_assert!(passed * MINUTE_MS <= u64::from(rate) * (MINUTE_MS + now));
        }
    }
}
