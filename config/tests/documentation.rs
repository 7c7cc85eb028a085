//! docs/configuration.md holds the table as it is; `LEADSMAN_RENDER=1 cargo test -p config` writes it.

const BEGIN: &str = "<!-- the settings' table, rendered -->\n";
const END: &str = "<!-- end of the table -->\n";

#[test]
fn the_documented_settings_are_the_real_ones() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    let rendered = format!("\n{}\n", config::render::markdown());
    if std::env::var_os("LEADSMAN_RENDER").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{rendered}{END}{after}")).unwrap();
    } else {
        assert!(
            table == rendered,
            "the table differs: LEADSMAN_RENDER=1 cargo test -p config"
        );
    }
}
