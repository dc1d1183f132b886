//! Expressions from their text, by recursive descent; what binds more tightly stands further down.
//!
//! ```text
//! or         = and {OR and}                 and = not {AND not}              not = NOT not | comparison
//! comparison = sum [("=" | "!=" | "<>" | "<" | "<=" | ">" | ">=") sum | [NOT] IN list | NIN list]
//! sum        = product {("+" | "-") product}         product = signed {("*" | "/" | "%") signed}
//! signed     = "-" signed | "(" or ")" | constant | list | function "(" or {, or} ")" | path elements
//! elements   = {"[" number "]" {"." name}}, in conditions of routes
//! list       = "[" constants "]", behind IN also "(" constants ")", or a path
//! path       = [devices "." [(modules | jobs) "."]] name {"." name}       name = word | "[[" characters "]]"
//! constant   = 'text' | "text" | number | 0xhex | true | false | null | undefined
//! ```

use serde_json::Value;

use super::QueryError;
use super::expression::{Comparison, Expression, Path};
use super::functions::Function;
use super::lexer::Token;
use super::parser::{DEPTH_MAX, Parser};
use super::values::Operator;

const COMPARISONS: [(&str, Comparison); 7] = [
    ("=", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<>", Comparison::NotEqual),
    ("<", Comparison::Less),
    ("<=", Comparison::LessOrEqual),
    (">", Comparison::Greater),
    (">=", Comparison::GreaterOrEqual),
];
const SUMS: [(&str, Operator); 2] = [("+", Operator::Add), ("-", Operator::Subtract)];
const PRODUCTS: [(&str, Operator); 3] =
    [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)];

impl Parser {
    /// An expression to its end.
    ///
    /// # Errors
    /// [`QueryError`] with the place of the first token that does not fit.
    pub(super) fn expression(&mut self) -> Result<Expression, QueryError> {
        self.or(0)
    }

    fn or(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut terms = vec![self.and(depth)?];
        while self.take_keyword("OR") {
            terms.push(self.and(depth)?);
        }
        Ok(one_or(terms, Expression::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut terms = vec![self.not(depth)?];
        while self.take_keyword("AND") {
            terms.push(self.not(depth)?);
        }
        Ok(one_or(terms, Expression::And))
    }

    fn not(&mut self, depth: usize) -> Result<Expression, QueryError> {
        if self.take_keyword("NOT") {
            let depth = self.deeper(depth)?;
            return Ok(Expression::Not(Box::new(self.not(depth)?)));
        }
        self.comparison(depth)
    }

    fn comparison(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let left = self.sum(depth)?;
        for (symbol, comparison) in COMPARISONS {
            if self.take_symbol(symbol) {
                let right = self.sum(depth)?;
                return Ok(Expression::Compare(Box::new((left, right)), comparison));
            }
        }
        if self.take_keyword("IN") {
            return Ok(Expression::In(Box::new((left, self.values()?))));
        }
        let is_not = self.take_keyword("NOT");
        if is_not {
            self.expect_keyword("IN")?;
        }
        if is_not || self.take_keyword("NIN") {
            let is_in = Expression::In(Box::new((left, self.values()?)));
            return Ok(Expression::Not(Box::new(is_in)));
        }
        Ok(left)
    }

    fn sum(&mut self, depth: usize) -> Result<Expression, QueryError> {
        self.chain(&SUMS, |parser| parser.product(depth))
    }

    fn product(&mut self, depth: usize) -> Result<Expression, QueryError> {
        self.chain(&PRODUCTS, |parser| parser.signed(depth))
    }

    fn chain(
        &mut self,
        operators: &[(&str, Operator)],
        one: impl Fn(&mut Self) -> Result<Expression, QueryError>,
    ) -> Result<Expression, QueryError> {
        let first = one(self)?;
        let mut rest = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.take_symbol(symbol)) {
            rest.push((*operator, one(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expression::Chain(Box::new(first), rest) })
    }

    fn signed(&mut self, depth: usize) -> Result<Expression, QueryError> {
        if self.take_symbol("-") {
            let depth = self.deeper(depth)?;
            return Ok(negative(self.signed(depth)?));
        }
        if self.take_symbol("(") {
            let depth = self.deeper(depth)?;
            let inner = self.or(depth)?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        if *self.peek() == Token::Symbol("[") {
            return self.values();
        }
        if let Some(value) = self.take_constant() {
            return Ok(Expression::Constant(value));
        }
        if self.take_keyword("undefined") {
            return Ok(Expression::Undefined);
        }
        let at = self.at();
        let path = self.path()?;
        if self.take_symbol("(") {
            return self.call(at, &path.join("."), depth);
        }
        let steps = self.elements()?;
        Ok(if steps.is_empty() { Expression::Property(path) } else { Expression::Element(path, steps) })
    }

    /// `[0].name[1]`, where the language has elements.
    fn elements(&mut self) -> Result<Vec<(usize, Path)>, QueryError> {
        let mut steps = Vec::new();
        while self.has_elements && self.take_symbol("[") {
            let index = match self.peek() {
                Token::Number(number) => number.as_u64().and_then(|index| usize::try_from(index).ok()),
                _ => None,
            };
            let index = index.ok_or_else(|| self.wrong("the number of an element, from 0"))?;
            self.skip();
            self.expect_symbol("]")?;
            let mut below = Path::new();
            while self.take_symbol(".") {
                below.push(self.name(|_| true)?);
            }
            steps.push((index, below));
        }
        Ok(steps)
    }

    fn call(&mut self, at: usize, name: &str, depth: usize) -> Result<Expression, QueryError> {
        let depth = self.deeper(depth)?;
        let arguments = if *self.peek() == Token::Symbol(")") {
            Vec::new()
        } else {
            self.list(|parser| parser.or(depth))?
        };
        self.expect_symbol(")")?;
        let function =
            Function::of_call(name, arguments.len()).map_err(|message| QueryError::new(at, message))?;
        Ok(Expression::Call(function, arguments))
    }

    /// What is searched for a value.
    fn values(&mut self) -> Result<Expression, QueryError> {
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.take_symbol(open) {
                let values = self.list(Self::constant)?;
                self.expect_symbol(close)?;
                return Ok(Expression::Constant(Value::Array(values)));
            }
        }
        self.path().map(Expression::Property)
    }

    fn constant(&mut self) -> Result<Value, QueryError> {
        const EXPECTED: &str = "a text in quotes, a number, true, false or null";
        if !self.take_symbol("-") {
            return self.take_constant().ok_or_else(|| self.wrong(EXPECTED));
        }
        let Token::Number(number) = self.peek() else { return Err(self.wrong("a number behind the sign")) };
        let negative = Operator::Subtract.apply(&Value::from(0), &Value::Number(number.clone()));
        let negative = negative.ok_or_else(|| self.wrong(EXPECTED))?;
        self.skip();
        Ok(negative)
    }

    fn take_constant(&mut self) -> Option<Value> {
        let value = match self.peek() {
            Token::Text(text) => Value::String(text.clone()),
            Token::Number(number) => Value::Number(number.clone()),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Value::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Value::Bool(false),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => Value::Null,
            _ => return None,
        };
        self.skip();
        Some(value)
    }

    /// One level further down, if there is one.
    fn deeper(&mut self, depth: usize) -> Result<usize, QueryError> {
        if depth < DEPTH_MAX {
            Ok(depth.saturating_add(1))
        } else {
            Err(self.wrong(&format!("at most {DEPTH_MAX} levels of parentheses, calls, NOT and signs")))
        }
    }
}

/// The negative of a value: a number at once, anything else when it is known.
fn negative(value: Expression) -> Expression {
    let zero = Value::from(0);
    match &value {
        Expression::Constant(constant) => match Operator::Subtract.apply(&zero, constant) {
            Some(negative) => Expression::Constant(negative),
            None => Expression::Undefined,
        },
        _ => Expression::Chain(Box::new(Expression::Constant(zero)), vec![(Operator::Subtract, value)]),
    }
}

fn one_or(mut terms: Vec<Expression>, many: impl FnOnce(Vec<Expression>) -> Expression) -> Expression {
    match terms.pop() {
        Some(only) if terms.is_empty() => only,
        last => {
            terms.extend(last);
            many(terms)
        }
    }
}
