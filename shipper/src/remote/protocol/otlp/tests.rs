//! Requests that keep the format's rules and say what the profiles said.

use pprof::{Builder, Line, Mapping, Meta};

use super::*;

fn series(comm: &str) -> Series {
    let mut builder = Builder::new(Meta {
        time_nanos: 5,
        duration_nanos: 10,
        frequency: 100,
    });
    let mapping = builder.mapping(&Mapping {
        filename: "/bin/x",
        build_id: "abcd",
        ..Mapping::default()
    });
    let function = builder.function("main", "main", "x.c");
    let named = builder.location(Some(mapping), 16, &[Line { function, line: 7 }]);
    let unnamed = builder.location(Some(mapping), 32, &[]);
    let labels = pprof::Labels {
        others: &[("thread_id", "9"), ("thread_name", "worker")],
        ..pprof::Labels::default()
    };
    builder.sample(&[unnamed, named], &labels, 3);
    Series {
        labels: [("__name__", "n"), ("comm", comm), ("node", "host")]
            .map(|(name, value)| Label {
                name: name.to_owned(),
                value: value.to_owned(),
            })
            .to_vec(),
        profile: pprof::encode(&builder.finish()).into(),
        samples: 3,
    }
}

#[test]
fn tables_begin_with_the_empty_entry_and_hold_nothing_twice() {
    let parcel = Arc::new(Parcel {
        series: vec![series("a"), series("b")],
    });
    let request = request(&[parcel]);
    let dictionary = request.dictionary.unwrap();
    assert_eq!(dictionary.string_table[0], "");
    let unique: std::collections::HashSet<_> = dictionary.string_table.iter().collect();
    assert_eq!(unique.len(), dictionary.string_table.len());
    let lengths = [
        dictionary.mapping_table.len(),
        dictionary.location_table.len(),
        dictionary.function_table.len(),
        dictionary.stack_table.len(),
        dictionary.link_table.len(),
    ];
    assert_eq!(lengths, [2, 3, 2, 2, 1]);
    assert_eq!(request.resource_profiles.len(), 2);
    let profile = &request.resource_profiles[1].scope_profiles[0].profiles[0];
    assert_eq!((profile.time_unix_nano, profile.period), (5, 10_000_000));
    let sample = &profile.samples[0];
    assert_eq!(sample.values, [3]);
    let stack = &dictionary.stack_table[sample.stack_index as usize];
    let addresses: Vec<u64> = stack
        .location_indices
        .iter()
        .map(|at| dictionary.location_table[*at as usize].address)
        .collect();
    assert_eq!(addresses, [32, 16]);
    let key = |at: &i32| {
        let attribute = &dictionary.attribute_table[*at as usize];
        dictionary.string_table[attribute.key_strindex as usize].as_str()
    };
    let keys: Vec<_> = sample.attribute_indices.iter().map(key).collect();
    assert_eq!(keys, ["thread.id", "thread.name"]);
}
