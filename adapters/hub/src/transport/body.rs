//! The body of a request, which has to arrive in time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a body may take to arrive (own limit; as long as a client may take to log in).
const BODY_TIME: Duration = Duration::from_secs(30);
/// A body that keeps arriving has a second more for each so many bytes: uploads over slow lines are not cut.
const BYTES_PER_SECOND: u64 = 16 * 1024;

/// A body with a deadline, which moves on as the body arrives.
struct InTime {
    inner: Body,
    began: Instant,
    received: u64,
    until: Pin<Box<Sleep>>,
}

/// The body did not arrive in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "the body did not arrive within 30 s and a second for each 16 KiB; send it at once, with its length in Content-Length"
)]
struct Late;

/// Gives the body of a request so much time and no more.
pub(crate) async fn in_time(request: Request, next: Next) -> Response {
    let (parts, inner) = request.into_parts();
    if inner.is_end_stream() {
        return next.run(Request::from_parts(parts, inner)).await;
    }
    let began = Instant::now();
    let body = InTime { inner, began, received: 0, until: Box::pin(sleep_until(began + BODY_TIME)) };
    next.run(Request::from_parts(parts, Body::new(body))).await
}

impl HttpBody for InTime {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            ready!(this.until.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Late.into())));
        };
        if let Some(Ok(frame)) = &frame {
            this.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            let more = Duration::from_secs(this.received / BYTES_PER_SECOND);
            this.until.as_mut().reset(this.began + BODY_TIME + more);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use futures_util::stream;
    use tower::ServiceExt as _;

    use super::*;

    async fn status_of(body: Body) -> u16 {
        let router =
            Router::new().route("/", post(|body: Bytes| async move { body })).layer(from_fn(in_time));
        let request = Request::post("/").body(body).unwrap();
        router.oneshot(request).await.unwrap().status().as_u16()
    }

    fn trickle(pause: Duration, count: usize, size: usize) -> Body {
        Body::from_stream(stream::unfold(0, move |sent| async move {
            tokio::time::sleep(pause).await;
            (sent < count).then(|| (Ok::<_, std::io::Error>(vec![b'.'; size]), sent + 1))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_and_one_that_trickles_are_refused() {
        assert_eq!(status_of(Body::from_stream(stream::pending::<std::io::Result<Bytes>>())).await, 400);
        assert_eq!(status_of(trickle(Duration::from_secs(5), 100, 1)).await, 400);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_body_over_a_slow_line_is_taken() {
        assert_eq!(status_of(trickle(Duration::from_secs(1), 60, 32 * 1024)).await, 200);
    }
}
