//! Years of suspends, clock steps, outages, crashes and hostile answers, in virtual time: the
//! same core as the program, several processes on one store, and the server of `demo`.
//!
//! `ZG_SIM_SEED=N cargo test --test simulation years -- --nocapture` replays one seed, and
//! `ZG_SIM_TRACE=1` with it says what happens; `ZG_SIM_YEARS=N` lives so many account-years.

#[path = "simulation/figures.rs"]
mod figures;
#[path = "simulation/fleet/mod.rs"]
mod fleet;
#[path = "simulation/incidents.rs"]
mod incidents;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/mutants.rs"]
mod mutants;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/process.rs"]
mod process;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/rules.rs"]
mod rules;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/trouble.rs"]
mod trouble;
#[path = "simulation/world.rs"]
mod world;

use figures::Figures;
use mutants::Mutant;
use plan::{Plan, YEAR};
use random::Random;
use rules::{Rule, Violation};
use world::World;

/// Account-years of every test run, over fixed and fresh seeds together.
const YEARS: i64 = 100;

/// Seeds that every run lives through: some half of its years.
const FIXED: std::ops::Range<u64> = 0..90;

/// Seeds that once broke a promise. Each has a test of its own among the core's tests,
/// since a seed means another world whenever the drawing of plans changes.
const FOUND: [u64; 8] = [
    173,
    66_749_656_909_959,
    23_099_621_694_167,
    12_214_920_816_054,
    1_076_928_129_397,
    133_061_158_725_303,
    216_752_114_622_929,
    267_136_615_339_572,
];

fn live(seed: u64, traced: bool) -> Result<Figures, Violation> {
    let plan = Plan::draw(&mut Random::new(seed));
    if traced {
        println!("{plan:?}");
    }
    let mut world = World::new(seed, plan, None);
    world.traced = traced;
    world.live()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a whole number"))
}

#[test]
fn years_without_a_broken_promise() {
    if let Some(seed) = number("ZG_SIM_SEED") {
        let lived = live(seed, number("ZG_SIM_TRACE").is_some());
        match lived {
            Ok(figures) => println!("{figures:#?}"),
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
        return;
    }
    let years = number("ZG_SIM_YEARS").map_or(YEARS, u64::cast_signed);
    let fresh = getrandom::u64().expect("randomness") >> 16;
    let seeds = FIXED.chain(FOUND).chain(fresh..);
    let mut total = Figures::default();
    let mut lived = 0;
    for seed in seeds {
        match live(seed, false) {
            Ok(figures) => total.add(&figures),
            Err(violation) => panic!("ZG_SIM_SEED={seed} breaks a promise: {violation}"),
        }
        lived += 1;
        if total.account_ms >= years * YEAR {
            break;
        }
    }
    println!("{lived} seeds: 0 to {}, {FOUND:?}, and from {fresh} on", FIXED.end - 1);
    println!("{:.1} account-years, {total:#?}", total.account_ms as f64 / YEAR as f64);
}

#[test]
fn the_week_of_the_mutants_is_harmless_to_the_core() {
    for seed in 0..20 {
        let lived = World::new(seed, mutants::week(), None).live();
        assert!(lived.is_ok(), "seed {seed}: {lived:?}");
    }
}

#[test]
fn two_dead_tokens_in_a_row_cost_a_second_and_no_more() {
    let mut again = 0;
    let mut caught = 0;
    for seed in 0..10 {
        let live = |mutant| World::new(seed, mutants::sleepy_days(), mutant).live();
        again += live(None).unwrap_or_else(|violation| panic!("seed {seed}: {violation}")).dead_again;
        let late = live(Some(Mutant::Dawdles)).err();
        caught += u32::from(late.is_some_and(|late| matches!(late.rule, Rule::Late | Rule::Gap)));
    }
    println!("{again} tokens were dead again; the mutant was caught in {caught} of 10 worlds");
    assert!(again > 0, "the days are not sleepy enough");
    assert!(caught > 0, "the mutant got away");
}

#[test]
fn every_mutant_is_caught() {
    let mut caught = 0;
    for (mutant, rules) in mutants::ALL {
        let found: Vec<_> =
            (0..20).filter_map(|seed| World::new(seed, mutants::week(), Some(mutant)).live().err()).collect();
        let found: Vec<_> = found.iter().map(|violation| violation.rule).collect();
        println!("{mutant:?}: {found:?}");
        if found.iter().any(|rule| rules.contains(rule)) {
            caught += 1;
        } else {
            println!("{mutant:?} got away");
        }
    }
    println!("{caught} of {} mutants caught", mutants::ALL.len());
    assert_eq!(caught, mutants::ALL.len());
}
