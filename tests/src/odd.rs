//! The stacks of odd.c, crypto.c, simple.c, unframed.c, async.rs and cgo.go. The chains here and the functions there must change together.

use crate::chain::Chain;

/// The threads of odd.c, without its children.
#[must_use]
pub fn odd_chains() -> Vec<Chain> {
    vec![
        Chain::of(
            "w-longjmp",
            &[
                "w_enter",
                "w_longjmp_main",
                "w_long_a",
                "w_long_b",
                "w_spin",
            ],
        )
        .or(&["w_enter", "w_longjmp_main", "w_long_landed", "w_spin"]),
        Chain::of(
            "w-nested",
            &[
                "w_enter",
                "w_nested_main",
                "w_on_first",
                "w_on_second",
                "w_spin",
            ],
        ),
        Chain::of(
            "w-eintr",
            &[
                "w_enter",
                "w_eintr_main",
                "w_wait_for_nothing",
                "w_on_interrupt",
                "w_spin",
            ],
        ),
        Chain::of(
            "w-context",
            &["w_enter", "w_context_main", "w_context_resume", "w_spin"],
        )
        .or(&["w_context_body", "w_context_step", "w_spin"]),
        Chain::of(
            "w-jump",
            &["w_enter", "w_jump_main", "w_jump_resume", "w_spin"],
        )
        .or(&["w_jump_body", "w_jump_step", "w_spin"]),
        Chain::of(
            "w-dlclose",
            &[
                "w_enter",
                "w_dlclose_main",
                "w_plugin_entry",
                "w_plugin_inner",
                "w_plugin_callback",
                "w_spin",
            ],
        )
        .or(&[
            "w_enter",
            "w_dlclose_main",
            "w_other_entry",
            "w_other_inner",
            "w_other_last",
            "w_plugin_callback",
            "w_spin",
        ]),
        Chain::of("w-faults", &["w_enter", "w_faults_main", "w_faults_touch"]),
        Chain::of(
            "w-strings",
            &["w_enter", "w_strings_main", "w_strings_scan"],
        ),
    ]
}

/// The short-lived processes that odd.c starts, by the name of their only thread.
#[must_use]
pub fn odd_child_chains() -> Vec<Chain> {
    vec![
        Chain::of(
            "w-vchild",
            &["w_enter", "w_vfork_main", "w_vfork_child", "w_spin"],
        ),
        Chain::of("w-texec", &["w_child_spin", "w_child_turn"]).outside_too(),
    ]
}

/// The threads of crypto.c.
#[must_use]
pub fn crypto_chains() -> Vec<Chain> {
    let chain = |thread, main, body| Chain::of(thread, &["w_enter", main, body]);
    vec![
        chain("w-power", "w_power_main", "w_power"),
        chain("w-power-odd", "w_power_odd_main", "w_power"),
        chain("w-power-1024", "w_power_1024_main", "w_power"),
        chain("w-gcm", "w_gcm_main", "w_encrypt"),
        chain("w-cbc", "w_cbc_main", "w_encrypt"),
        chain("w-camellia", "w_camellia_main", "w_encrypt"),
        chain("w-chacha", "w_chacha_main", "w_encrypt"),
        chain("w-digest", "w_digest_main", "w_digest"),
    ]
}

/// The threads of simple.c: the first one has the program's name, which is told.
#[must_use]
pub fn simple_chains(program: &'static str) -> [Chain; 2] {
    [
        Chain::of(
            program,
            &["w_simple_main", "w_simple_a", "w_simple_b", "w_spin"],
        ),
        Chain::of(
            "w-second",
            &["w_thread_main", "w_thread_a", "w_simple_b", "w_spin"],
        ),
    ]
}

/// The thread of unframed.c.
#[must_use]
pub fn unframed_chain() -> Chain {
    Chain::of(
        "w-unframed",
        &[
            "w_unframed_main",
            "w_unframed_a",
            "w_unframed_b",
            "w_unframed_leaf",
        ],
    )
}

/// The thread of async.rs.
#[must_use]
pub fn async_chain() -> Chain {
    Chain::of(
        "w-async",
        &["w_async_main", "w_async_outer", "w_async_inner", "w_spin"],
    )
    .or(&["w_async_main", "w_async_other", "w_spin"])
}

/// The goroutines of cgo.go, on any of its threads; the runtime's own stacks are right as well.
#[must_use]
pub fn cgo_chain() -> Chain {
    Chain::of("", &["w_go_calls_c", "w_c_outer", "w_c_burn"])
        // C's name for the exported function, and Go's.
        .or(&[
            "w_go_called_back",
            "w_c_calls_back",
            "w_go_callback",
            "w_go_spin",
        ])
        .repeated("w_go_callback", 2)
        .or(&["w_go_collects", "w_go_spin"])
        .outside_too()
}
