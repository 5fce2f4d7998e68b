use std::fmt::Write;

use gantry_client::v1::{ValidateConnectorResponse, finding::Severity};

/// What a validation found, errors apart from warnings, and what it could not look at. `place`: where the definition stands.
pub(crate) fn validation(name: &str, place: &str, answer: &ValidateConnectorResponse) -> String {
    let mut text = String::new();
    for severity in [Severity::Error, Severity::Warning] {
        let word = match severity {
            Severity::Error => "error",
            _ => "warning",
        };
        for f in answer.findings.iter().filter(|f| f.severity() == severity) {
            let _ = writeln!(text, "{word}: {}: {}", f.field, f.message);
            let _ = writeln!(text, "   at: {place}");
            if !f.fix.is_empty() {
                let _ = writeln!(text, "  fix: {}", f.fix);
            }
            if !f.recommended.is_empty() {
                let _ = writeln!(text, " take: {}", f.recommended.join(", "));
            }
        }
    }
    for check in &answer.not_checked {
        let _ = writeln!(text, "not checked: {check}");
    }
    let count = |severity| {
        answer
            .findings
            .iter()
            .filter(|f| f.severity() == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let told = match (errors, warnings, answer.not_checked.is_empty()) {
        (0, 0, true) => "nothing wrong was found".to_owned(),
        (0, 0, false) => "nothing wrong was found in what was checked".to_owned(),
        _ => format!("errors: {errors}, warnings: {warnings}"),
    };
    let _ = writeln!(text, "{name}: {told}");
    text
}

#[cfg(test)]
mod tests {
    use gantry_client::v1::Finding;

    use super::*;

    #[test]
    fn errors_come_before_warnings_and_what_was_not_checked_is_said() {
        let finding = |severity: Severity, field: &str| Finding {
            severity: severity.into(),
            field: field.into(),
            message: "is odd".into(),
            fix: "mend it".into(),
            recommended: vec!["a".into(), "b".into()],
        };
        let answer = ValidateConnectorResponse {
            findings: vec![
                finding(Severity::Warning, "topic"),
                finding(Severity::Error, "config.start"),
            ],
            not_checked: vec!["the rest".into()],
        };
        assert_eq!(
            validation("lines", "f.yaml:1", &answer),
            "error: config.start: is odd\n   at: f.yaml:1\n  fix: mend it\n take: a, b\n\
             warning: topic: is odd\n   at: f.yaml:1\n  fix: mend it\n take: a, b\n\
             not checked: the rest\nlines: errors: 1, warnings: 1\n"
        );
    }

    #[test]
    fn what_was_not_checked_is_not_called_right() {
        let all = validation("lines", "", &ValidateConnectorResponse::default());
        assert_eq!(all, "lines: nothing wrong was found\n");
        let some = ValidateConnectorResponse {
            findings: vec![],
            not_checked: vec!["the plugin's own checks".into()],
        };
        assert!(validation("lines", "", &some).ends_with("in what was checked\n"));
    }
}
