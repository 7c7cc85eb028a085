//! Rows per second of the unwind table builder, beside gimli walking the same rows for nothing and beside
//! lightswitch-unwind-info building its own compact table, on the same files in the same run.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gimli::{
    BaseAddresses, CieOrFde, EhFrame, EndianSlice, LittleEndian, UnwindContext, UnwindSection,
};
use leadsman_symbolizer::unwind_table;
use object::{Object, ObjectSection};

/// Those of these that the machine has.
const FILES: [&str; 4] = [
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/bin/node",
    "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1",
];
/// Turns of which the fastest is taken for the ratios.
const TURNS: usize = 5;

/// Walks all rows as gimli makes them and says how many there are.
fn gimli_walk(bytes: &[u8]) -> u64 {
    let file = object::File::parse(bytes).expect("ELF");
    let section = file.section_by_name(".eh_frame").expect(".eh_frame");
    let eh_frame = EhFrame::from(EndianSlice::new(
        section.data().expect("its bytes"),
        LittleEndian,
    ));
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut context = UnwindContext::new();
    let mut entries = eh_frame.entries(&bases);
    let mut count = 0;
    let mut latest = None;
    while let Some(entry) = entries.next().expect("an entry") {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let fde = partial
            .parse(|section, bases, offset| match &latest {
                Some((known, cie)) if *known == offset => {
                    Ok(gimli::CommonInformationEntry::clone(cie))
                }
                _ => {
                    let cie = section.cie_from_offset(bases, offset)?;
                    latest = Some((offset, cie.clone()));
                    Ok(cie)
                }
            })
            .expect("an FDE");
        let mut rows = fde.rows(&eh_frame, &bases, &mut context).expect("rows");
        while let Some(row) = rows.next_row().expect("a row") {
            black_box(row);
            count += 1;
        }
    }
    count
}

fn own(bytes: &[u8]) -> usize {
    unwind_table::build(bytes).expect("a table").encode().len()
}

fn lightswitch(bytes: &[u8]) -> usize {
    lightswitch_unwind_info::compact_unwind_info(bytes, None)
        .expect("a table")
        .len()
}

fn fastest<T>(mut act: impl FnMut() -> T) -> Duration {
    (0..TURNS)
        .map(|_| {
            let start = Instant::now();
            black_box(act());
            start.elapsed()
        })
        .min()
        .expect("at least one turn")
}

/// Says how often as fast as the others the builder is, and what a row costs in the kernel.
fn ratios(name: &str, bytes: &[u8], rows: u64) {
    let ours = fastest(|| own(bytes));
    let gimlis = fastest(|| gimli_walk(bytes));
    let lightswitchs = fastest(|| lightswitch(bytes));
    let table = unwind_table::build(bytes).expect("a table");
    // One 2 KiB object for each chunk, one 1 KiB object for each region.
    let kernel_bytes = 2048 * table.chunks() + 1024 * table.regions();
    println!(
        "{name}: {rows} rows in {ours:.2?}; gimli's bare walk {gimlis:.2?} = {:.1} x, lightswitch-unwind-info \
         {lightswitchs:.2?} = {:.1} x; {} packed rows, {:.2} kernel bytes per packed row, {:.2} per row",
        gimlis.as_secs_f64() / ours.as_secs_f64(),
        lightswitchs.as_secs_f64() / ours.as_secs_f64(),
        table.rows(),
        kernel_bytes as f64 / table.rows() as f64,
        kernel_bytes as f64 / rows as f64,
    );
}

fn benchmark(criterion: &mut Criterion) {
    for path in FILES.map(Path::new) {
        let Ok(bytes) = std::fs::read(path) else {
            println!("{} is not on this machine", path.display());
            continue;
        };
        let name = path.file_name().expect("a name").to_string_lossy();
        let rows = gimli_walk(&bytes);
        ratios(&name, &bytes, rows);
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(2))
            .throughput(Throughput::Elements(rows));
        group.bench_function("leadsman", |bencher| bencher.iter(|| own(&bytes)));
        group.bench_function("gimli walk", |bencher| bencher.iter(|| gimli_walk(&bytes)));
        group.bench_function("lightswitch-unwind-info", |bencher| {
            bencher.iter(|| lightswitch(&bytes));
        });
        group.finish();
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
