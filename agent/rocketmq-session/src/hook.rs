//! What brokers answer to the producer's sends. The client's errors keep an answer's code but not the words that come
//! with it, and those tell a wrong queue from a busy broker. Its hooks run in the task of the call, so that
//! each call finds its own answer.

use std::{future::Future, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use rocketmq_error::SharedError;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use rocketmq_transport::api::RPCHook;

const SEND_BATCH_MESSAGE: i32 = 320;

/// What has become of the request of a call.
#[derive(Default)]
pub(crate) struct Seen {
    /// It was given to a connection.
    pub(crate) left: bool,
    /// The broker answered.
    pub(crate) answer: Option<RemotingCommand>,
}

tokio::task_local! {
    static SEEN: Arc<Mutex<Seen>>;
}

/// Runs a call that sends messages, and says what was seen of its request.
pub(crate) async fn watch<T>(call: impl Future<Output = T>) -> (T, Seen) {
    let seen = Arc::<Mutex<Seen>>::default();
    let result = SEEN.scope(seen.clone(), call).await;
    let seen = std::mem::take(&mut *seen.lock());
    (result, seen)
}

/// Given to each client.
pub(crate) struct Hook;

impl RPCHook for Hook {
    fn do_before_request(&self, _: SocketAddr, request: &mut RemotingCommand) -> Result<(), SharedError> {
        if request.code() == SEND_BATCH_MESSAGE {
            _ = SEEN.try_with(|seen| seen.lock().left = true);
        }
        Ok(())
    }

    fn do_after_response(
        &self,
        _: SocketAddr,
        request: &RemotingCommand,
        response: &mut RemotingCommand,
    ) -> Result<(), SharedError> {
        if request.code() == SEND_BATCH_MESSAGE {
            _ = SEEN.try_with(|seen| seen.lock().answer = Some(response.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_and_answered(remark: &'static str) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut request = RemotingCommand::create_remoting_command(SEND_BATCH_MESSAGE);
        Hook.do_before_request(address, &mut request).unwrap();
        let mut response = RemotingCommand::create_response_command_with_code_remark(1, remark);
        Hook.do_after_response(address, &request, &mut response).unwrap();
    }

    #[tokio::test]
    async fn each_call_sees_its_own_answer() {
        let first = watch(async {
            tokio::task::yield_now().await;
            sent_and_answered("first");
        });
        let second = watch(async { sent_and_answered("second") });
        let (((), first), ((), second)) = tokio::join!(first, second);
        let remark = |seen: Seen| seen.answer.unwrap().remark().unwrap().to_string();
        assert!(first.left && second.left);
        assert_eq!((remark(first), remark(second)), ("first".into(), "second".into()));
    }

    #[tokio::test]
    async fn what_was_not_sent_was_not_seen_and_other_requests_do_not_count() {
        sent_and_answered("outside of any call");
        let ((), seen) = watch(async {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let mut route = RemotingCommand::create_remoting_command(105);
            Hook.do_before_request(address, &mut route).unwrap();
        })
        .await;
        assert!(!seen.left && seen.answer.is_none());
    }
}
