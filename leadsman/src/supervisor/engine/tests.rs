use super::*;

const ROLES: [Role; 3] = [Role::Shipper, Role::Symbolizer, Role::Sampler];

fn ms(milliseconds: u64) -> Moment {
    Duration::from_millis(milliseconds)
}

fn row(role: Role, patience: u64) -> Row {
    Row {
        roles: vec![role],
        patience: ms(patience),
    }
}

fn engine(essential: &[Role]) -> Engine {
    let rules = Rules {
        stop_order: vec![
            row(Role::Sampler, 1000),
            row(Role::Symbolizer, 1000),
            row(Role::Shipper, 500),
        ],
        essential: essential.to_vec(),
    };
    let (engine, actions) = Engine::new(&ROLES, rules, ms(0));
    assert_eq!(actions, ROLES.map(Action::Start));
    engine
}

#[test]
fn a_killed_process_is_started_again_however_often() {
    let mut engine = engine(&[]);
    let mut now = ms(100);
    for _ in 0..30 {
        let actions = engine.on(Event::Ended(Role::Symbolizer, End::Signal(9)), now);
        let [Action::Restarting(Role::Symbolizer, End::Signal(9), pause)] = actions[..] else {
            panic!("{actions:?}");
        };
        assert!(pause < ms(2000), "{pause:?}");
        assert_eq!(engine.next(), Some(now + pause));
        assert_eq!(engine.on(Event::Tick, now + pause / 2), []);
        now += pause;
        assert_eq!(
            engine.on(Event::Tick, now),
            [Action::Start(Role::Symbolizer)]
        );
        now += ms(300);
    }
}

#[test]
fn the_pause_grows_and_a_good_life_resets_it() {
    let mut engine = engine(&[]);
    let pause = |engine: &mut Engine, now| {
        let actions = engine.on(Event::Ended(Role::Shipper, End::Signal(11)), now);
        let [Action::Restarting(_, _, pause)] = actions[..] else {
            panic!("{actions:?}");
        };
        engine.on(Event::Tick, now + pause);
        pause
    };
    assert_eq!(pause(&mut engine, ms(10)), ms(50));
    assert_eq!(pause(&mut engine, ms(100)), ms(100));
    assert_eq!(pause(&mut engine, ms(300)), ms(200));
    assert_eq!(pause(&mut engine, ms(9000)), ms(50));
}

#[test]
fn a_crash_loop_ends_everything() {
    let mut engine = engine(&[]);
    let mut now = ms(0);
    for _ in 1..CRASH_LOOP {
        now += ms(2000);
        let actions = engine.on(Event::Ended(Role::Shipper, End::Signal(11)), now);
        assert!(
            matches!(actions[..], [Action::Restarting(..)]),
            "{actions:?}"
        );
        now += ms(2000);
        engine.on(Event::Tick, now);
    }
    let end = End::Signal(11);
    let actions = engine.on(Event::Ended(Role::Shipper, end), now + ms(10));
    assert_eq!(
        actions,
        [
            Action::GiveUp(Role::Shipper, Some(end)),
            Action::Terminate(Role::Sampler)
        ]
    );
    assert!(engine.failed());
}

#[test]
fn a_process_that_refuses_its_first_start_ends_everything() {
    let mut engine = engine(&[]);
    let actions = engine.on(Event::Ended(Role::Sampler, End::Status(1)), ms(50));
    assert_eq!(
        actions,
        [
            Action::GiveUp(Role::Sampler, Some(End::Status(1))),
            Action::Terminate(Role::Symbolizer)
        ]
    );
}

#[test]
fn a_proven_process_may_fail_and_one_may_ask_for_a_restart() {
    let mut engine = engine(&[]);
    let actions = engine.on(Event::Ended(Role::Sampler, End::Status(75)), ms(50));
    assert!(
        matches!(actions[..], [Action::Restarting(..)]),
        "{actions:?}"
    );
    let actions = engine.on(Event::Ended(Role::Shipper, End::Status(1)), ms(5000));
    assert!(
        matches!(
            actions[..],
            [
                Action::Restarting(Role::Shipper, ..),
                Action::Start(Role::Sampler)
            ]
        ),
        "{actions:?}"
    );
}

#[test]
fn an_essential_process_ends_everything() {
    let mut engine = engine(&[Role::Sampler]);
    let actions = engine.on(Event::Ended(Role::Sampler, End::Signal(9)), ms(60_000));
    assert!(
        matches!(actions[0], Action::GiveUp(Role::Sampler, _)),
        "{actions:?}"
    );
}

#[test]
fn all_stop_in_order() {
    let mut engine = engine(&[]);
    assert_eq!(
        engine.on(Event::Stop, ms(100)),
        [Action::Terminate(Role::Sampler)]
    );
    assert_eq!(engine.on(Event::Stop, ms(110)), []);
    let ended = |role| Event::Ended(role, End::Status(0));
    assert_eq!(
        engine.on(ended(Role::Sampler), ms(200)),
        [Action::Terminate(Role::Symbolizer)]
    );
    // Out of its turn: not asked again.
    assert_eq!(engine.on(ended(Role::Shipper), ms(210)), []);
    assert_eq!(engine.on(ended(Role::Symbolizer), ms(220)), [Action::Done]);
    assert!(!engine.failed());
    assert_eq!(engine.next(), None);
}

#[test]
fn who_does_not_stop_is_killed() {
    let mut engine = engine(&[]);
    engine.on(Event::Stop, ms(0));
    assert_eq!(engine.next(), Some(ms(1000)));
    assert_eq!(engine.on(Event::Tick, ms(999)), []);
    assert_eq!(
        engine.on(Event::Tick, ms(1000)),
        [Action::Kill(Role::Sampler)]
    );
    let ended = Event::Ended(Role::Sampler, End::Signal(9));
    assert_eq!(
        engine.on(ended, ms(1001)),
        [Action::Terminate(Role::Symbolizer)]
    );
    // Somebody loses patience.
    assert_eq!(
        engine.on(Event::StopNow, ms(1002)),
        [Action::Kill(Role::Symbolizer)]
    );
}

#[test]
fn nobody_waits_for_a_process_that_is_not_running() {
    let mut engine = engine(&[]);
    engine.on(Event::Ended(Role::Sampler, End::Signal(9)), ms(10));
    assert_eq!(
        engine.on(Event::Stop, ms(20)),
        [Action::Terminate(Role::Symbolizer)]
    );
}
