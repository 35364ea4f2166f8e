//! Rates: what starts, what waits, and until when.

use super::starts::launched;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Takes a turn of a pool with a rate.
fn rated(state: InternalState, batch: Batch, rate: Option<Rate>) -> Step {
    let (key_rule, lost) = (KeyRule::default(), Vec::new());
    let cx = TurnCx { max_parallelism: SLOTS, rate, key_rule, can_run: &|_| true, lost };
    step(state, batch, POOL, cx)
}

fn limited(settings: PoolConfig, state: &mut InternalState, now: u64) -> (usize, Segment) {
    let demand = demand(state, &settings.settings(), SLOTS, Segment(now));
    (demand.max_starts, state.limited_until)
}

#[test]
fn a_burst_starts_and_the_rest_waits_for_its_time() {
    let rate = Rate::per_second(5).burst(2);
    let works = [s1(1), s1(2), s1(3)];
    let step = rated(state([]), starts(&works), Some(rate));
    assert_eq!(launched(&step), [id(1), id(2)]);
    assert_eq!(step.state.cursors.incoming, Segment(950), "the cursor stays before the third");
    // 200 ms for each, less the 5 ms for late timers.
    assert_eq!(step.state.limited_until, Segment(1_195));
    let mut state = step.state;
    let config = PoolConfig::default().rate(rate);
    assert_eq!(limited(config.clone(), &mut state, 1_000), (0, Segment(1_195)));
    assert_eq!(limited(config.clone(), &mut state, 1_194), (0, Segment(1_195)));
    assert_eq!(limited(config, &mut state, 1_195), (1, Segment(0)));
}

#[test]
fn a_loop_that_waits_for_its_rate_rests_until_then() {
    let waiting = InternalState { limited_until: Segment(1_195), ..state([]) };
    let until = |segment| RunStatus::Scheduled {
        segment: Segment(segment),
        saturated: false,
        generation: GENERATION,
    };
    assert_eq!(rest(&waiting, Some(Segment(950)), SLOTS), until(1_195));
    // Nobody wakes it for a job that comes meanwhile: it looks by itself.
    assert_eq!(rest(&waiting, Some(Segment(1_300)), SLOTS), until(1_195));
    assert_eq!(rest(&waiting, None, SLOTS), until(1_195));
}

#[test]
fn a_job_that_costs_more_waits_longer_and_nothing_passes_it() {
    let rate = Rate::per_second(10).burst(5);
    let mut heavy = s1(2);
    let options = SpecOptions { extra_cost: 3, ..SpecOptions::default() };
    let head = SpecHead { options: Some(Box::new(options)), ..SpecHead::clone(&heavy.spec) };
    heavy.spec = Spec::new(id(2), head, b"");
    let step = rated(state([]), starts([&s1(1), &s1(4), &heavy, &s1(3)]), Some(rate));
    assert_eq!(launched(&step), [id(1), id(4)]);
    assert_eq!(step.state.limited_until, Segment(1_095));
    let mut later = starts([&heavy, &s1(3)]);
    later.read_at = Segment(1_100);
    let step =
        rated(InternalState { running: Default::default(), ..step.state }, later, Some(rate));
    assert_eq!(launched(&step), [id(2)]);
}

#[test]
fn a_refused_start_takes_nothing_from_the_rate() {
    let rate = Some(Rate::per_second(1));
    // All slots are taken: the rate is not asked.
    let full: Vec<_> = (10..10 + SLOTS as u64).map(s2).collect();
    let step = rated(state(&full), starts([&s1(1)]), rate);
    assert_eq!((launched(&step), step.state.tat), (vec![], 0));
    let limit = InternalState { tat: 5_000_000_000, ..state([]) };
    let step = rated(limit, starts([&s1(1)]), rate);
    assert_eq!((launched(&step), step.state.tat), (vec![], 5_000_000_000));
    assert_eq!(step.changes, [], "a job that waits costs no commit");
}

#[test]
fn a_pool_that_is_to_rest_starts_nothing_until_then() {
    for rate in [None, Some(Rate::per_second(100).burst(10))] {
        let busy = s5(1);
        let until = Segment(NOW.0 + 1_000);
        let row = completion(&busy, RunResult::PoolLimited(SECOND), Retry::At(until));
        let batch = Batch { starts: vec![start(&s1(2))], ..completions([row]) };
        let step = rated(state([&busy]), batch, rate);
        assert_eq!(launched(&step), []);
        assert_eq!(step.state.limited_until, until);
        assert_eq!(step.state.report.completed, 0, "the attempt is not charged");
        let config = rate.map_or(PoolConfig::default(), |rate| PoolConfig::default().rate(rate));
        let mut state = step.state;
        assert_eq!(limited(config.clone(), &mut state, until.0 - 1), (0, until));
        let (room, free) = limited(config, &mut state, until.0);
        assert!(room >= 1 && free == Segment(0), "{room}");
        let mut later = starts([&s1(2)]);
        later.read_at = until;
        assert_eq!(launched(&rated(state, later, rate)), [id(2)]);
    }
}

#[test]
fn a_pool_is_to_rest_though_the_job_that_asks_for_it_is_canceled() {
    let canceled = s9(1);
    let row = completion(&canceled, RunResult::PoolLimited(SECOND), Retry::No);
    let step = rated(state([&canceled]), completions([row]), None);
    // Its completion is from 960.
    let mut state = step.state;
    assert_eq!(limited(PoolConfig::default(), &mut state, 1_000), (0, Segment(1_960)));
}

#[test]
fn what_a_canceled_job_would_have_cost_delays_no_other() {
    let waiting = InternalState { limited_until: Segment(9_000), ..state([]) };
    let step = rated(waiting, cancelations([cancelation(&s7(1))]), Some(Rate::per_second(1)));
    let mut state = step.state;
    let config = PoolConfig::default().rate(Rate::per_second(1));
    assert_eq!(limited(config, &mut state, 1_000), (1, Segment(0)));
}

#[test]
fn an_attempt_that_limits_its_pool_does_not_count() {
    let work = s2(1);
    let result = RunResult::PoolLimited(SECOND);
    let row = arrived(&work, result.clone());
    let at = Retry::At(NOW.after(SECOND));
    assert_eq!(row, pending_completion(&work, result, at, work.attempts));
}
