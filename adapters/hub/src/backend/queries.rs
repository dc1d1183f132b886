//! `POST /devices/query`: twins, or what jobs did with devices.

use super::query::{Cursor, ItemType, Page, Selection};
use super::{Backend, Error};

impl Backend {
    /// Answers a query: the page of at most `size` rows that a continuation token asks for, or the first one.
    ///
    /// # Errors
    /// 400004 for what is no query, and for a token that was not given out for this very query.
    pub async fn query(&self, text: &str, continuation: Option<&str>, size: usize) -> Result<Page, Error> {
        let selection = Selection::read(text)?;
        let cursor = Cursor::of(continuation, text)?;
        let (rows, item_type, next) = match selection {
            Selection::Twins(query) => self.query_twins(query, cursor, size).await?,
            Selection::JobRows { filter, top } => {
                let (rows, next) = self.job_rows(filter.as_ref(), top, cursor, size).await;
                (rows, ItemType::DeviceJob, next)
            }
        };
        Ok(Page { rows, item_type, continuation: next.map(|next| next.token(text)) })
    }
}
