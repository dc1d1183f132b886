//! The text of a query, cut into tokens.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::Number;

use super::QueryError;
use crate::observe::printable::printable;

/// One token; `at` is the place of its first character, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lexeme {
    pub(super) at: usize,
    pub(super) token: Token,
}

/// What a query is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A keyword, a property name or the name of a function.
    Word(String),
    /// A property name in double brackets: `[[a name]]`.
    Name(String),
    /// A text in single or double quotes, its escapes resolved.
    Text(String),
    /// A number.
    Number(Number),
    /// A character or two of punctuation.
    Symbol(&'static str),
    /// Behind the last token.
    End,
}

/// Longest first, so that `<=` is not taken for `<`.
const SYMBOLS: [&str; 18] =
    ["<>", "<=", ">=", "!=", "=", "<", ">", "(", ")", "[", "]", ",", ".", "*", "+", "-", "/", "%"];

/// Cuts a text into tokens; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Lexeme>, QueryError> {
    let mut lexer = Lexer { rest: text.chars().peekable(), at: 1 };
    let mut lexemes = Vec::new();
    loop {
        lexer.skip(char::is_whitespace);
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        lexemes.push(Lexeme { at, token });
        if end {
            return Ok(lexemes);
        }
    }
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    at: usize,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.at = self.at.saturating_add(usize::from(next.is_some()));
        next
    }

    fn skip(&mut self, which: impl Fn(char) -> bool) -> String {
        let mut skipped = String::new();
        while let Some(character) = self.rest.peek().copied().filter(|character| which(*character)) {
            skipped.push(character);
            self.next();
        }
        skipped
    }

    fn starts_with(&self, text: &str) -> bool {
        let mut rest = self.rest.clone();
        text.chars().all(|character| rest.next() == Some(character))
    }

    fn token(&mut self) -> Result<Token, QueryError> {
        match self.rest.peek().copied() {
            None => Ok(Token::End),
            Some(quote @ ('\'' | '"')) => self.text(quote),
            Some(first) if first.is_ascii_digit() => self.number(),
            Some(first) if first != '-' && in_word(first) => Ok(Token::Word(self.skip(in_word))),
            Some(_) if self.starts_with("[[") => self.name(),
            Some(other) => self.symbol(other),
        }
    }

    fn symbol(&mut self, first: char) -> Result<Token, QueryError> {
        let symbol = SYMBOLS.into_iter().find(|symbol| self.starts_with(symbol));
        let symbol = symbol.ok_or_else(|| {
            QueryError::new(
                self.at,
                match first {
                    // Told in words: the SDKs cut the message of an error at the character itself.
                    ';' => "a semicolon has no meaning here: a query is one statement, and ends without one"
                        .to_owned(),
                    other => format!("`{}` has no meaning here", printable(&other.to_string())),
                },
            )
        })?;
        for _ in symbol.chars() {
            self.next();
        }
        Ok(Token::Symbol(symbol))
    }

    /// A JSON number without its sign, or `0x` and hexadecimal digits.
    fn number(&mut self) -> Result<Token, QueryError> {
        let at = self.at;
        let mut text = self.skip(|character| character.is_ascii_alphanumeric() || character == '.');
        let is_hex = text.starts_with("0x") || text.starts_with("0X");
        if !is_hex
            && text.ends_with(['e', 'E'])
            && self.rest.peek().is_some_and(|sign| matches!(sign, '+' | '-'))
        {
            text.extend(self.next());
            text += &self.skip(|character| character.is_ascii_alphanumeric() || character == '.');
        }
        let number = match text.get(2..).filter(|_| is_hex) {
            Some(digits) => u64::from_str_radix(digits, 16).ok().map(Number::from),
            // JSON's numbers are Azure's numbers.
            None => serde_json::from_str(&text).ok(),
        };
        let wrong = || QueryError::new(at, format!("`{text}` is not a number; write 12, 1.5, 2e3 or 0x1F"));
        number.map(Token::Number).ok_or_else(wrong)
    }

    fn text(&mut self, quote: char) -> Result<Token, QueryError> {
        let at = self.at;
        let open = || QueryError::new(at, format!("the text that begins here has no closing {quote}"));
        self.next();
        let mut text = String::new();
        loop {
            match self.next().ok_or_else(open)? {
                end if end == quote => return Ok(Token::Text(text)),
                '\\' => text.push(self.escaped()?),
                character => text.push(character),
            }
        }
    }

    /// `\'`, `\"`, `\\`, `\/`, `\n` and its like, and `\uXXXX`.
    fn escaped(&mut self) -> Result<char, QueryError> {
        let at = self.at.saturating_sub(1);
        let unknown =
            || QueryError::new(at, "the escapes are \\' \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\uXXXX");
        match self.next() {
            Some(character @ ('\'' | '"' | '\\' | '/')) => Ok(character),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => {
                let digits: String = (0..4).map_while(|_| self.next()).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                code.and_then(char::from_u32).ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }

    fn name(&mut self) -> Result<Token, QueryError> {
        let at = self.at;
        self.next();
        self.next();
        let name = self.skip(|character| character != ']');
        if !self.starts_with("]]") {
            return Err(QueryError::new(at, "the name that begins here has no closing ]]"));
        }
        self.next();
        self.next();
        Ok(Token::Name(name))
    }
}

/// Letters, digits and what else stands in property names. A hyphen inside a word belongs to it, as tags are often called
/// `cost-center`; who subtracts writes a blank before it.
fn in_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '-' | ':' | '@' | '#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens_of(text: &str) -> Vec<Token> {
        tokens(text).unwrap().into_iter().map(|lexeme| lexeme.token).collect()
    }

    #[test]
    fn words_texts_numbers_and_symbols_are_told_apart() {
        let word = |text: &str| Token::Word(text.to_owned());
        assert_eq!(
            tokens_of(r#"a.[[b c]]>='x\'\u00e9' <>-1.5e+3 -0x1F"#),
            [
                word("a"),
                Token::Symbol("."),
                Token::Name("b c".to_owned()),
                Token::Symbol(">="),
                Token::Text("x'é".to_owned()),
                Token::Symbol("<>"),
                Token::Symbol("-"),
                Token::Number(Number::from_f64(1500.0).unwrap()),
                Token::Symbol("-"),
                Token::Number(31.into()),
                Token::End,
            ]
        );
        assert_eq!(tokens_of("my-tag=1")[0], word("my-tag"));
    }

    #[test]
    fn a_semicolon_is_told_by_its_name() {
        let error = tokens("SELECT * FROM devices;").unwrap_err();
        assert!(error.message.contains("ends without one") && !error.message.contains(';'), "{error}");
        assert_eq!(error.at, 22);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place() {
        for (text, at) in [
            ("a = 'b", 5),
            ("a ; b", 3),
            ("a = 1.2.3", 5),
            ("a = 0xG", 5),
            ("a = 1e", 5),
            (r"'\x'", 2),
            ("[[a]", 1),
            ("'\\ud800'", 2),
        ] {
            assert_eq!(tokens(text).unwrap_err().at, at, "{text}");
        }
    }
}
