use crate::PluginInfo;

/// Checks what a plugin says of itself.
///
/// # Panics
/// When the name, the version, a text or the spec is not usable.
pub fn check_info(info: &PluginInfo) {
    let name = info.name;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    assert!(
        begins && !name.ends_with('-') && name.len() <= 63 && name.chars().all(fits),
        "{name:?} is not a plugin name"
    );
    let core = info.version.split(['-', '+']).next().unwrap_or_default();
    let numbers = core.split('.').filter(|n| n.parse::<u32>().is_ok()).count();
    assert!(
        numbers == 3 && core.split('.').count() == 3,
        "{name}: {:?} is not a semantic version",
        info.version
    );
    assert!(
        !info.summary.is_empty() && info.summary.lines().count() == 1,
        "{name}: the summary is one line"
    );
    assert!(!info.description.is_empty(), "{name}: no description");
    assert_eq!(
        info.spec.faults(),
        Vec::<String>::new(),
        "{name}: faults of the spec"
    );
}
