//! Any events in any order: no panic, and no request out of order.

use crate::oauth::{Answer, Defect};
use crate::problem::Class;
use crate::refresh::decide::{FileView, Loaded, Trigger};
use crate::refresh::outcome::Report;
use crate::refresh::tests::world::{World, client_refused, invalid_grant, lost, problem, unavailable};
use crate::refresh::{Action, Event, LockFailure};
use crate::secret::Secret;
use proptest::prelude::*;
use std::time::Duration;

/// Any event, with content that fits the world.
fn event(world: &mut World, kind: u8, detail: u8) -> Event {
    let io = || problem(Class::Io, "disk_full");
    let record = world.disk.clone().filter(|_| !detail.is_multiple_of(4));
    let file = match detail % 4 {
        0 => FileView::Missing,
        1 => FileView::Current,
        2 => FileView::Incomplete,
        _ => FileView::Other { modified_at: 7 },
    };
    let garbage = (detail % 8 == 4).then(|| "state.corrupt-1".into());
    let loaded = Box::new(Loaded { record, garbage, file });
    let trigger = Trigger {
        force: detail & 1 > 0,
        anew: detail & 2 > 0,
        retry_dead: detail & 4 > 0,
        reread: detail & 8 > 0,
        rejected: (detail & 16 > 0).then(|| Secret::new("at-1").fingerprint()),
        row: detail & 32 > 0,
    };
    match kind {
        0 | 1 => Event::Begin(trigger),
        2 | 3 => Event::Woke,
        4 if detail == 0 => Event::Stop,
        4 | 5 => Event::Loaded(Ok(loaded)),
        6 => Event::Loaded(Err(io())),
        7 => Event::InputsRead(world.inputs.clone()),
        8 => Event::InputsRead(Err(io())),
        9 | 10 => Event::Locked(Ok(loaded)),
        11 => Event::Locked(Err(LockFailure::Busy)),
        12 => Event::Locked(Err(LockFailure::Problem(io()))),
        13 => Event::TakenOver(Ok(world.disk.clone().filter(|_| detail < 32).map(Box::new))),
        14 => Event::TakenOver(Err(io())),
        15 | 16 => Event::Prepared(Ok(())),
        17 => Event::Prepared(Err(io())),
        18..=21 => Event::Answered(match detail % 6 {
            0 => invalid_grant(),
            1 => client_refused(),
            2 => lost(),
            3 => unavailable(Some(detail.into())),
            4 => Answer::Defective { refresh_token: Some(Secret::new("rt-d")), defect: Defect::Unreadable },
            _ => world.grant(),
        }),
        22 | 23 => Event::Persisted(Ok(())),
        24 => Event::Persisted(Err(io())),
        25 => Event::Published(Ok(Vec::new())),
        26 => Event::Published(Err(io())),
        27 => Event::Withdrawn(if detail < 128 { Ok(()) } else { Err(io()) }),
        _ => Event::Unlocked,
    }
}

proptest! {
    #![proptest_config(crate::regressions::cases(2000))]
    #[test]
    fn any_sequence_of_events_keeps_the_order(
        events in proptest::collection::vec((0_u8..30, any::<u8>(), 0_u64..100_000), 1..120),
    ) {
        let mut world = World::refreshed();
        world.supervisor = crate::refresh::Refresher::new(world.policy.clone(), 3);
        let (mut locked, mut prepared, mut persisting) = (false, false, false);
        let mut now = world.now;
        for (kind, detail, ms) in events {
            let event = event(&mut world, kind, detail);
            let (locks, prepares, unlocks, persists) = (
                matches!(event, Event::Locked(Ok(_))),
                matches!(event, Event::Prepared(Ok(()))),
                matches!(event, Event::Unlocked),
                matches!(event, Event::Persisted(Ok(()))),
            );
            now = now.plus(Duration::from_millis(ms));
            let actions = world.supervisor.handle(now, event);
            let ignored = actions
                .iter()
                .any(|action| matches!(action, Action::Report(report) if matches!(**report, Report::Ignored { .. })));
            if ignored {
                prop_assert_eq!(actions.len(), 1, "an event out of place changes nothing");
                continue;
            }
            // The state of another writer holds no answer of ours.
            let adopted = actions
                .iter()
                .any(|action| matches!(action, Action::Report(report) if matches!(**report, Report::Adopted)));
            locked = (locked || locks) && !unlocks;
            prepared = (prepared || prepares) && !unlocks;
            if persists || adopted {
                persisting = false;
            }
            let work: Vec<_> =
                actions.iter().filter(|action| !matches!(action, Action::Report(_))).collect();
            prop_assert!(work.len() <= 1, "one thing at a time: {:?}", work);
            for action in work {
                match action {
                    Action::Request(_) => {
                        prop_assert!(locked && prepared && !persisting);
                        // One lock hold covers one request.
                        prepared = false;
                        persisting = true;
                    }
                    Action::Prepare(record) => {
                        prop_assert!(locked && record.in_flight.is_some() && record.refresh_token.is_some());
                    }
                    Action::Persist(record) => prop_assert!(locked && record.in_flight.is_none()),
                    Action::Publish(_) | Action::Withdraw(_) | Action::TakeOver(_) | Action::Unlock => prop_assert!(locked),
                    Action::Lock => prop_assert!(!locked),
                    Action::Ask(_) => prop_assert!(false, "there is no fleet"),
                    Action::Load | Action::ReadInputs | Action::Report(_) => {}
                }
            }
        }
    }
}
