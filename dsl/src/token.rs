//! Splits an expression into tokens.

use std::iter::Peekable;
use std::str::CharIndices;

use crate::json;
use crate::node::Operator;
use crate::value::Value;

#[derive(Debug, Clone)]
pub(crate) enum Token {
    Name(String),
    QuotedName(String),
    Number(i32),
    Literal(Value<'static>),
    Compare(Operator),
    Dot,
    Star,
    /// `[]`
    Flatten,
    /// `[?`
    Filter,
    LeftBracket,
    RightBracket,
    LeftBrace,
    RightBrace,
    LeftParenthesis,
    RightParenthesis,
    And,
    Or,
    Pipe,
    Not,
    At,
    Ampersand,
    Comma,
    Colon,
    End,
}

impl Token {
    /// How tightly the token binds to what stands on its left; 0 for one that can't follow a value.
    pub(crate) fn binding(&self) -> u8 {
        match self {
            Token::Pipe => 1,
            Token::Or => 2,
            Token::And => 3,
            Token::Compare(_) => 5,
            Token::Flatten => 9,
            Token::Filter => 21,
            Token::Dot => 40,
            Token::LeftBracket => 55,
            _ => 0,
        }
    }

    /// For error messages.
    pub(crate) fn shown(&self) -> String {
        let symbol = match self {
            Token::Name(name) => return format!("'{name}'"),
            Token::QuotedName(_) => return "a quoted name".to_owned(),
            Token::Number(number) => return format!("the number {number}"),
            Token::Literal(_) => return "a literal".to_owned(),
            Token::End => return "the end of the expression".to_owned(),
            Token::Compare(Operator::Equal) => "==",
            Token::Compare(Operator::NotEqual) => "!=",
            Token::Compare(Operator::Less) => "<",
            Token::Compare(Operator::LessOrEqual) => "<=",
            Token::Compare(Operator::Greater) => ">",
            Token::Compare(Operator::GreaterOrEqual) => ">=",
            Token::Dot => ".",
            Token::Star => "*",
            Token::Flatten => "[]",
            Token::Filter => "[?",
            Token::LeftBracket => "[",
            Token::RightBracket => "]",
            Token::LeftBrace => "{",
            Token::RightBrace => "}",
            Token::LeftParenthesis => "(",
            Token::RightParenthesis => ")",
            Token::And => "&&",
            Token::Or => "||",
            Token::Pipe => "|",
            Token::Not => "!",
            Token::At => "@",
            Token::Ampersand => "&",
            Token::Comma => ",",
            Token::Colon => ":",
        };
        format!("'{symbol}'")
    }
}

/// What is wrong with an expression, at which byte, and perhaps what to do.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Fault {
            at,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The tokens with the byte each begins at; the last one is [`Token::End`].
pub(crate) fn tokens(expression: &str) -> Result<Vec<(usize, Token)>, Fault> {
    let mut lexer = Lexer {
        expression,
        chars: expression.char_indices().peekable(),
    };
    let mut tokens = Vec::new();
    while let Some((at, c)) = lexer.chars.next() {
        if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            tokens.push((at, lexer.token(at, c)?));
        }
    }
    tokens.push((expression.len(), Token::End));
    Ok(tokens)
}

struct Lexer<'e> {
    expression: &'e str,
    chars: Peekable<CharIndices<'e>>,
}

impl Lexer<'_> {
    fn token(&mut self, at: usize, first: char) -> Result<Token, Fault> {
        Ok(match first {
            'a'..='z' | 'A'..='Z' | '_' => {
                Token::Name(self.take_while(at, |c| c.is_ascii_alphanumeric() || c == '_'))
            }
            '0'..='9' | '-' => return self.number(at),
            '"' => return self.quoted_name(at),
            '\'' => Token::Literal(Value::text(self.delimited(at, '\'')?.replace("\\'", "'"))),
            '`' => return self.literal(at),
            '.' => Token::Dot,
            '*' => Token::Star,
            '@' => Token::At,
            ',' => Token::Comma,
            ':' => Token::Colon,
            ']' => Token::RightBracket,
            '{' => Token::LeftBrace,
            '}' => Token::RightBrace,
            '(' => Token::LeftParenthesis,
            ')' => Token::RightParenthesis,
            '[' if self.next_is(']') => Token::Flatten,
            '[' if self.next_is('?') => Token::Filter,
            '[' => Token::LeftBracket,
            '|' if self.next_is('|') => Token::Or,
            '|' => Token::Pipe,
            '&' if self.next_is('&') => Token::And,
            '&' => Token::Ampersand,
            '=' if self.next_is('=') => Token::Compare(Operator::Equal),
            '=' => return Err(Fault::new(at, "'=' is no operator").hint("equality is written ==")),
            '!' if self.next_is('=') => Token::Compare(Operator::NotEqual),
            '!' => Token::Not,
            '<' if self.next_is('=') => Token::Compare(Operator::LessOrEqual),
            '<' => Token::Compare(Operator::Less),
            '>' if self.next_is('=') => Token::Compare(Operator::GreaterOrEqual),
            '>' => Token::Compare(Operator::Greater),
            other => {
                let hint = "a name with other characters than letters, digits and _ is written in double quotes";
                return Err(Fault::new(at, format!("unexpected {other:?}")).hint(hint));
            }
        })
    }

    fn next_is(&mut self, expected: char) -> bool {
        self.chars.next_if(|(_, c)| *c == expected).is_some()
    }

    fn take_while(&mut self, start: usize, belongs: fn(char) -> bool) -> String {
        while self.chars.next_if(|(_, c)| belongs(*c)).is_some() {}
        let end = self
            .chars
            .peek()
            .map_or(self.expression.len(), |(at, _)| *at);
        self.expression[start..end].to_owned()
    }

    fn number(&mut self, at: usize) -> Result<Token, Fault> {
        let text = self.take_while(at, |c| c.is_ascii_digit());
        if text == "-" || text.starts_with("-0") {
            return Err(Fault::new(at, "'-' must be followed by a number from 1"));
        }
        let fault = |_| Fault::new(at, format!("the number {text} is out of range"));
        text.parse().map(Token::Number).map_err(fault)
    }

    /// What stands up to the closing delimiter, backslashes included.
    fn delimited(&mut self, opening: usize, delimiter: char) -> Result<String, Fault> {
        while let Some((at, c)) = self.chars.next() {
            if c == delimiter {
                return Ok(self.expression[opening + 1..at].to_owned());
            }
            if c == '\\' {
                self.chars.next();
            }
        }
        Err(Fault::new(
            opening,
            format!("the closing {delimiter} is missing"),
        ))
    }

    fn quoted_name(&mut self, at: usize) -> Result<Token, Fault> {
        let inside = self.delimited(at, '"')?;
        match json::read_text(&format!("\"{inside}\""), 1) {
            Ok(Value::String(name)) => Ok(Token::QuotedName(name.as_str().into_owned())),
            Ok(_) => Err(Fault::new(at, "the quoted name is not a JSON string")),
            Err(bad) => Err(Fault::new(
                at + bad.at,
                format!("the quoted name is not a JSON string: {}", bad.what),
            )),
        }
    }

    fn literal(&mut self, at: usize) -> Result<Token, Fault> {
        const LITERAL_DEPTH: usize = 100;
        let inside = self.delimited(at, '`')?.replace("\\`", "`");
        let value = json::read_text(&inside, LITERAL_DEPTH).map_err(|bad| {
            Fault::new(
                at,
                format!(
                    "the literal is not JSON: {} at its byte {}",
                    bad.what, bad.at
                ),
            )
            .hint("text is written 'text' or `\"text\"`")
        })?;
        Ok(Token::Literal(value.detached()))
    }
}
