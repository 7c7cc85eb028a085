//! Against `perf record` on the same load in the same seconds: as many user samples, process by process.

use anyhow::{Result, ensure};
use leadsman_tests::Machine;
use leadsman_tests::mixed_load::MixedLoad;
use leadsman_tests::perf::PerfRecording;
use leadsman_tests::record::record_profile;

/// Processes with fewer samples than this are shown, not judged.
const FEWEST: f64 = 200.0;

#[test]
fn as_many_user_samples_as_perf_record() -> Result<()> {
    const RATE: u32 = 97;
    const SECONDS: u32 = 8;
    let _machine = Machine::lock()?;
    let load = MixedLoad::start()?;
    let perf = PerfRecording::start(RATE, SECONDS)?;
    let recording = record_profile(&["-d", &format!("{SECONDS}s"), "-F", &RATE.to_string()])?;
    let theirs = perf.finish()?;
    drop(load);
    let profile = recording.profile;
    let mut ours = leadsman_tests::perf::UserSamples::new();
    for stack in profile.stacks.iter().filter(|stack| stack.is_user()) {
        *ours.entry(stack.thread_name.clone()).or_default() += stack.count.unsigned_abs();
    }
    // The tools measure each other too; both leave both out.
    for name in ["perf", "perf-exec", "sleep"] {
        ours.remove(name);
    }
    ours.retain(|name, _| !name.starts_with("leadsman"));
    let theirs: leadsman_tests::perf::UserSamples = theirs
        .into_iter()
        .filter(|(name, _)| {
            !name.starts_with("leadsman")
                && !["perf", "perf-exec", "sleep"].contains(&name.as_str())
        })
        .collect();
    let (own, other) = (
        ours.values().sum::<u64>() as f64,
        theirs.values().sum::<u64>() as f64,
    );
    let whole = profile
        .complete(|stack| stack.thread_name != "w-deep5000")
        .0;
    println!(
        "user samples: {own} ours, {other} perf's; complete {:.2} %",
        100.0 * whole
    );
    let mut text = String::new();
    for name in ours
        .keys()
        .chain(theirs.keys().filter(|name| !ours.contains_key(*name)))
    {
        let (own, other) = (
            ours.get(name).copied().unwrap_or(0),
            theirs.get(name).copied().unwrap_or(0),
        );
        text += &format!("{name:16} {own:6} {other:6}\n");
    }
    println!("{text}");
    ensure!(other > FEWEST, "perf saw only {other} samples");
    // None may be missing; the windows of the two differ by what each needs to start and end.
    ensure!(
        (0.93..=1.2).contains(&(own / other)),
        "{own} against perf's {other}:\n{text}"
    );
    for (name, &count) in theirs.iter().filter(|(_, count)| **count as f64 >= FEWEST) {
        let own = ours.get(name).copied().unwrap_or(0) as f64;
        ensure!(
            (0.8..=1.25).contains(&(own / count as f64)),
            "{name}: {own} against perf's {count}\n{text}"
        );
    }
    Ok(())
}
