//! Compare and refresh: a resource has refused a token that should live. However many callers
//! report it, one refresh answers them all.
//!
//! sub2api's scenarios, by its names, and the tests that hold them here. Scenarios without a meaning here:
//! its caches and their lifetimes (NoCacheNoLock, NilInvalidator; a lock of the kernel has none),
//! what belongs to one provider (BuildClaudeAccountCredentials, AntigravityNonRetryableError),
//! MergeCredentials of nothing, and BackgroundRefreshPolicy_SuccessOverride (a pass with nothing to
//! do always succeeds).
//!
//! | sub2api | here |
//! | --- | --- |
//! | RefreshIfNeeded_Success, PathA_Success | `rejected::refresh_if_needed_success_then_already_refreshed` |
//! | RefreshIfNeeded_AlreadyRefreshed, PathA_AlreadyRefreshed | `rejected::refresh_if_needed_success_then_already_refreshed`, `once::nothing_due_is_no_network` |
//! | RefreshIfNeeded_LockHeld, PathA_LockHeld | `races::waiters_give_up_on_a_holder_that_stands_still`, `token::on_lock_held` |
//! | RefreshIfNeeded_LockErrorDegrades: here it fails, a rotation without a lock may cost the login | `placement::a_file_system_without_locks_is_refused` |
//! | RefreshIfNeeded_RefreshError | `rejected::refresh_error_stores_nothing_lets_go_of_the_lock_and_is_remembered` |
//! | RefreshIfNeeded_DBUpdateError, PathA_DBUpdateFailed, RefreshWithRetry_UpdateFailed | `faults::disks::a_disk_that_stays_broken_after_the_request_is_given_half_a_minute`, `push::a_token_that_cannot_be_published_is_not_sent` |
//! | RefreshIfNeeded_DBRereadFails: fails closed, as later there | `seeds::a_state_that_cannot_be_read_is_no_first_run` |
//! | RefreshIfNeeded_NilCredentials: an answer without a token is a failure | `refresh::lifetimes::the_refresh_token_of_an_unusable_reply_is_kept_and_tried_again` |
//! | MergeCredentials_Basic, _NilNew | `seeds::without_rotation_the_refresh_token_stays` |
//! | MergeCredentials_NewOverridesOld | `seeds::the_rotated_refresh_token_is_the_next_to_be_sent` |
//! | BackgroundRefreshPolicy_DefaultSkips | `daemon::once_beside_run_shares_its_state` |
//! | ClaudeProviderRefreshPolicy and its like: here flags | `token::on_refresh_error`, `token::on_lock_held` |
//! | RefreshWithRetry_InvalidatesCache, _Antigravity, _OtherPlatformOAuth | `push::each_target_gets_each_token_as_zerogravity_takes_it` |
//! | RefreshWithRetry_InvalidatorErrorIgnored | `push::a_target_that_fails_is_tried_again_and_fails_nothing_else` |
//! | RefreshWithRetry_NonOAuthAccount | `control::a_token_that_is_given_without_refresh_token_is_served_and_status_says_so` |
//! | RefreshWithRetry_RefreshFailed, _AntigravityRefreshFailed, PathA_RetryableErrorExhausted | `once::a_failure_is_69_and_later_passes_wait`, `refresh::failures::the_backoff_doubles_to_a_minute_and_then_to_five` |
//! | RefreshWithRetry_NonRetryableErrorAllPlatforms, PathA_NonRetryableError | `refusals::a_dead_refresh_token_is_sent_once`, `refusals::a_refused_client_is_tried_once_an_hour` |
//! | RefreshWithRetry_ClearsTempUnschedulable | `refusals::a_success_forgets_the_failures` |
//! | IsNonRetryableRefreshError, IsInvalidGrantError | `oauth::the_table` |
//! | InvalidGrantRaceRecovered | `refusals::invalid_grant_race_recovered` |
//! | InvalidGrantRaceGenuine | `refusals::a_dead_refresh_token_is_sent_once` |
//! | InvalidGrantDBRereadFailsOnRecovery | `refusals::invalid_grant_whose_state_cannot_be_read_again_is_genuine` |
//! | LocalMutexSerializesConcurrent | `rejected::local_mutex_serializes_concurrent`, `control::a_crowd_that_is_refused_costs_one_request` |
//! | LateSuccessAfterDeadlineDoesNotPersist: a late answer is none, and is asked for again | `ambiguity::a_server_that_is_silent_until_the_deadline_is_asked_again` |
//! | LocalLockWaitHonorsContext | `refresh::disk::told_to_stop_it_does_not_wait_for_a_busy_lock` |
//! | ReleasesDistributedLockAfterParentCancellation | `ambiguity::once_finishes_its_request_when_told_to_stop`, `ambiguity::a_pass_that_was_killed_in_mid_request_is_made_up_for` |
//! | RevalidatesFreshAccountBeforeRefresh | `refresh::disk::a_busy_lock_is_waited_for_and_then_not_needed_any_more` |
//! | NoRefreshTokenDoesNotTempUnschedule | `seeds::an_account_without_a_refresh_token_says_so` |
//! | CheckTokenVersion: an older token never goes after a newer one | `push::an_older_token_is_never_sent_after_a_newer_one`, `ambiguity::a_token_that_could_not_be_published_is_published_without_another_request` |
//! | TTLCalculation | `refresh::lifetimes::refresh_timings` |

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::Outage;
use zg_tokend::testing::secret::Secret;

use crate::common::world::World;
use crate::common::{Output, audit, figure, finish, wait_until};

/// `rejected` with this token on stdin.
fn rejected(world: &World, token: &Secret) -> Output {
    finish(&mut with_stdin(world, token.expose()))
}

fn with_stdin(world: &World, input: &str) -> Command {
    let path = world.sandbox.path("input");
    std::fs::write(&path, format!("{input}\n")).unwrap();
    let mut command = world.sandbox.command(["rejected"]);
    command.stdin(std::fs::File::open(path).unwrap());
    command
}

/// A minute later another report may count.
fn pass_a_minute(world: &World) {
    world.pass_time(Duration::from_secs(61));
}

#[test]
fn refresh_if_needed_success_then_already_refreshed() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let refused = world.token();
    let output = rejected(&world, &refused);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(0), "default: the token was replaced\n"),
        "{output:?}"
    );
    assert_ne!(world.token(), refused);
    world.assert_live();
    for _ in 0..3 {
        let output = rejected(&world, &refused);
        assert_eq!(output.stdout, "default: the stored token is another one already\n", "{output:?}");
        assert_eq!(output.code, Some(0));
    }
    assert_eq!(world.posts(), 2);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

/// Somebody was refused with a token of elsewhere, and none was ever stored here.
#[test]
fn a_report_while_there_is_no_token_brings_one() {
    let world = World::new();
    world.configure("");
    let output = rejected(&world, &Secret::new("at_of_elsewhere"));
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(0), "default: the token was replaced\n"),
        "{output:?}"
    );
    world.assert_live();
    assert_eq!(world.posts(), 1);
}

#[test]
fn the_token_can_be_named_by_its_sha256_or_that_of_the_file() {
    let world = World::new();
    world.configure("token_format = \"Authorization: {token_type} {access_token}\\n\"");
    world.once_gives(0, []);
    let content = std::fs::read_to_string(world.token_file()).unwrap();
    let token = content.trim_end().rsplit(' ').next().unwrap().to_owned();
    for (name, posts) in [(token, 2), (std::fs::read_to_string(world.token_file()).unwrap(), 2)] {
        let output =
            world.sandbox.run(["rejected", "--sha256", &Secret::new(name).fingerprint().to_string()]);
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(world.posts(), posts);
    }
    pass_a_minute(&world);
    let file = Secret::new(std::fs::read_to_string(world.token_file()).unwrap());
    let output = world.sandbox.run(["rejected", "--sha256", &file.fingerprint().to_string()]);
    assert_eq!((output.code, world.posts()), (Some(0), 3), "{output:?}");
    let output = world.sandbox.run(["rejected", "--sha256", "abc"]);
    assert_eq!(output.code, Some(2), "{output:?}");
}

/// Two hundred at once, with and without a supervisor: one request.
#[test]
fn local_mutex_serializes_concurrent() {
    for supervised in [false, true] {
        let world = World::new();
        world.configure("");
        let run = supervised.then(|| world.run());
        if !supervised {
            world.once_gives(0, []);
        }
        let sha256 = world.token().fingerprint().to_string();
        let posts = world.posts();
        let callers: Vec<_> = (0..200)
            .map(|_| {
                let mut command = world.sandbox.command(["rejected", "--sha256", &sha256]);
                command.stdout(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut caller in callers {
            assert_eq!(caller.wait().unwrap().code(), Some(0));
        }
        assert_eq!(world.posts() - posts, 1);
        world.assert_live();
        audit::assert_one_post_per_epoch(&world.server.audit());
        figure(format!("200 callers of `rejected`, supervised: {supervised}: 1 POST"));
        drop(run);
    }
}

/// Whoever refuses each new token is told so, and costs one request a minute.
#[test]
fn a_consumer_in_a_401_loop_is_no_outage_at_the_provider() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    assert_eq!(rejected(&world, &world.token()).code, Some(0));
    for _ in 0..5 {
        let output = rejected(&world, &world.token());
        assert_eq!(output.code, Some(69), "{output:?}");
        assert!(output.stderr.contains("the next replacement is possible in"), "{output:?}");
        assert!(output.stderr.contains("hint: find out why fresh tokens are refused"), "{output:?}");
    }
    assert_eq!(world.posts(), 2);
    pass_a_minute(&world);
    assert_eq!(rejected(&world, &world.token()).code, Some(0));
    assert_eq!(world.posts(), 3);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn refresh_error_stores_nothing_lets_go_of_the_lock_and_is_remembered() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let refused = world.token();
    world.outage(Some(Outage::Closed));
    let output = rejected(&world, &refused);
    assert_eq!(output.code, Some(69), "{output:?}");
    assert_eq!(world.token(), refused, "the reader's token stays");
    world.outage(None);
    // Nobody has to report it again.
    wait_until("the wait after the failure", || {
        world.once([]);
        (world.token() != refused).then_some(())
    });
    world.assert_live();
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_supervisor_takes_the_replacement_as_its_own() {
    let world = World::with_lifetime(4);
    world.configure("");
    let mut run = world.run();
    let refused = world.token();
    assert_eq!(rejected(&world, &refused).code, Some(0));
    wait_until("refreshes after it", || (world.grants() >= 5).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_report_without_a_token_is_a_mistake() {
    let world = World::new();
    world.configure("");
    let output = world.sandbox.run(["rejected"]);
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("--sha256"), "{output:?}");
    assert_eq!(world.posts(), 0);
}

/// The table above names tests that exist.
#[test]
fn each_scenario_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = include_str!("rejected.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let names: Vec<_> = table.flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let (place, test) = name.rsplit_once("::").unwrap();
        let (layer, part) = place.split_once("::").unwrap_or((place, ""));
        let files = [
            format!("tests/it/{}.rs", place.replace("::", "/")),
            format!("src/{layer}/tests/{part}.rs"),
            format!("src/{layer}/tests.rs"),
        ];
        let mut texts = files.iter().filter_map(|file| std::fs::read_to_string(root.join(file)).ok());
        assert!(texts.any(|text| text.contains(&format!("#[test]\nfn {test}()"))), "{name}");
    }
}
