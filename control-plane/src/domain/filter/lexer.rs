use super::FilterError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Open,
    Close,
    Equal,
    NotEqual,
    Has,
    And,
    Or,
    Not,
    /// A word without quotes.
    Word(String),
    /// What was in quotes.
    Quoted(String),
}

/// The tokens, each with where it begins, in characters from 1.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().enumerate().map(|(i, c)| (i + 1, c)).peekable();
    while let Some((at, c)) = chars.next() {
        let token = match c {
            c if c.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            '=' => Token::Equal,
            ':' => Token::Has,
            '!' if chars.next_if(|(_, c)| *c == '=').is_some() => Token::NotEqual,
            '"' | '\'' => {
                let mut quoted = String::new();
                loop {
                    match chars.next() {
                        None => {
                            return Err(FilterError {
                                at,
                                message: "a quote that does not end".into(),
                            });
                        }
                        Some((_, end)) if end == c => break,
                        Some((_, '\\')) => quoted.extend(chars.next().map(|(_, c)| c)),
                        Some((_, c)) => quoted.push(c),
                    }
                }
                Token::Quoted(quoted)
            }
            c if is_word(c) => {
                let mut word = String::from(c);
                while let Some((_, c)) = chars.next_if(|(_, c)| is_word(*c)) {
                    word.push(c);
                }
                match word.as_str() {
                    "AND" => Token::And,
                    "OR" => Token::Or,
                    "NOT" => Token::Not,
                    _ => Token::Word(word),
                }
            }
            c => {
                return Err(FilterError {
                    at,
                    message: format!("{c:?} is not understood; quote texts that contain it"),
                });
            }
        };
        tokens.push((at, token));
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '*' | '%' | '|' | '@' | '+')
}
