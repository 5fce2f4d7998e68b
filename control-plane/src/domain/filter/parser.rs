use super::{
    Expression, Field, FilterError, Pattern, eval,
    lexer::{Token, tokens},
};
use crate::domain::validate::nearest;

const MAX_CHARS: usize = 4_096;
/// Parentheses and NOTs inside of each other.
const MAX_DEPTH: usize = 32;
const FIELDS: [&str; 6] = ["name", "plugin", "kind", "state", "target_state", "labels"];

pub(super) fn parse(text: &str) -> Result<Option<Expression>, FilterError> {
    let length = text.chars().count();
    if length > MAX_CHARS {
        let message = format!("the filter has {length} characters; at most {MAX_CHARS} are read");
        return Err(FilterError {
            at: MAX_CHARS,
            message,
        });
    }
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser {
        tokens,
        next: 0,
        end: length + 1,
    };
    let expression = parser.conjunction(0)?;
    match parser.peek() {
        None => Ok(Some(expression)),
        Some(_) => Err(parser.error("expected AND, OR or the end")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn error(&self, message: impl Into<String>) -> FilterError {
        let at = self.tokens.get(self.next).map_or(self.end, |(at, _)| *at);
        FilterError {
            at,
            message: message.into(),
        }
    }

    fn conjunction(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut parts = vec![self.disjunction(depth)?];
        while self.take(&Token::And) {
            parts.push(self.disjunction(depth)?);
        }
        Ok(one_or(parts, Expression::All))
    }

    fn disjunction(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut parts = vec![self.term(depth)?];
        while self.take(&Token::Or) {
            parts.push(self.term(depth)?);
        }
        Ok(one_or(parts, Expression::Any))
    }

    fn term(&mut self, depth: usize) -> Result<Expression, FilterError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} levels")));
        }
        if self.take(&Token::Not) {
            return Ok(Expression::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.take(&Token::Open) {
            let inside = self.conjunction(depth + 1)?;
            if !self.take(&Token::Close) {
                return Err(self.error("expected ')'"));
            }
            return Ok(inside);
        }
        self.restriction()
    }

    fn restriction(&mut self) -> Result<Expression, FilterError> {
        let Some(Token::Word(field)) = self.peek().cloned() else {
            return Err(self.error(format!("expected one of {}, NOT or '('", FIELDS.join(", "))));
        };
        let named = self.error("");
        self.next += 1;
        let field = self.field(&field, named)?;
        let (equal, negated) = match self.peek() {
            Some(Token::Equal) => (true, false),
            Some(Token::NotEqual) => (true, true),
            Some(Token::Has) => (false, false),
            _ => return Err(self.error("expected '=', '!=' or ':'")),
        };
        let whole_labels = field.is_none();
        if equal && whole_labels {
            return Err(self.error("labels are compared one by one: write labels.KEY"));
        }
        self.next += 1;
        let here = self.error("");
        let (value, quoted) = match self.tokens.get(self.next) {
            Some((_, Token::Word(text))) => (text.clone(), false),
            Some((_, Token::Quoted(text))) => (text.clone(), true),
            _ => return Err(self.error("expected a value")),
        };
        self.next += 1;
        let Some(field) = field else {
            return Ok(Expression::Is(Field::Label(value), Pattern::Present));
        };
        let value = match eval::choices(&field) {
            Some(choices) => choice(&value, choices, here)?,
            None => value,
        };
        let pattern = match (equal, &field) {
            (false, _) if value == "*" && !quoted => Pattern::Present,
            (false, Field::Name | Field::Plugin | Field::Label(_)) => Pattern::Part(value),
            _ => Pattern::Whole(value),
        };
        let is = Expression::Is(field, pattern);
        Ok(if negated {
            Expression::Not(Box::new(is))
        } else {
            is
        })
    }

    /// None: `labels` as a whole.
    fn field(&mut self, field: &str, at: FilterError) -> Result<Option<Field>, FilterError> {
        Ok(Some(match field {
            "name" => Field::Name,
            "plugin" => Field::Plugin,
            "kind" => Field::Kind,
            "state" => Field::State,
            "target_state" => Field::TargetState,
            "labels" => return Ok(None),
            _ => match field.strip_prefix("labels.") {
                Some("") => match self.peek().cloned() {
                    Some(Token::Quoted(key)) => {
                        self.next += 1;
                        Field::Label(key)
                    }
                    _ => return Err(self.error("expected the key of a label")),
                },
                Some(key) => Field::Label(key.to_owned()),
                None => {
                    let hint = match nearest(field, FIELDS) {
                        Some(name) => format!("did you mean {name}?"),
                        None => format!("use {}", FIELDS.join(", ")),
                    };
                    let field = crate::domain::validate::shorten(field);
                    return Err(FilterError {
                        message: format!("there is no field {field:?}; {hint}"),
                        ..at
                    });
                }
            },
        }))
    }
}

fn one_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        many(parts)
    }
}

/// The value as it is shown, whatever its case and with or without the prefix of its enum.
fn choice(value: &str, choices: &[&str], at: FilterError) -> Result<String, FilterError> {
    let upper = value.to_uppercase();
    let bare = choices
        .iter()
        .find(|c| upper == **c || upper.ends_with(&format!("STATE_{c}")) || upper == format!("KIND_{c}"));
    bare.map(|c| (*c).to_owned()).ok_or_else(|| {
        let value = crate::domain::validate::shorten(value);
        FilterError {
            message: format!("{value:?} is none of {}", choices.join(", ")),
            ..at
        }
    })
}
