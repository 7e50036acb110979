use engine::Started;

use super::*;

fn request() -> TokenRequest {
    TokenRequest::new(0, vec![1], 4)
}

fn report(id: RequestId, tokens: &[u32], end: Option<End>) -> StepReport {
    let updates = vec![TokenUpdate { id, tokens: tokens.to_vec(), logprobs: vec![], end }];
    StepReport {
        started: vec![Started { id, cached_tokens: 3, diverged_at: Some(5) }],
        updates,
        ..StepReport::default()
    }
}

fn open() -> (Arc<Live>, mpsc::Receiver<ToChild>) {
    let live = Arc::new(Live::default());
    let (outbox, inbox) = mpsc::channel(6);
    live.open(outbox);
    (live, inbox)
}

#[tokio::test]
async fn tokens_wait_for_their_reader_and_end_once() {
    let (live, _inbox) = open();
    let ticket = live.submit(request()).unwrap();
    live.accepted(ticket.id());
    assert_eq!(ticket.accepted().await, Ok(()));
    live.apply(&report(ticket.id(), &[5], None));
    live.apply(&report(ticket.id(), &[6], Some(End::Length)));
    let batch = ticket.next().await;
    assert_eq!(batch.tokens, [5, 6]);
    assert_eq!(batch.ending, Some(Ending::Done(End::Length)));
    assert_eq!(live.count(), 0);
}

#[tokio::test]
async fn a_dropped_ticket_aborts_unless_it_ended() {
    // Requirements 73 and 109.
    let (live, mut inbox) = open();
    let (left, done) = (live.submit(request()).unwrap(), live.submit(request()).unwrap());
    let left_id = left.id();
    live.apply(&report(done.id(), &[5], Some(End::Stop)));
    drop((left, done));
    let mut aborted = Vec::new();
    while let Ok(message) = inbox.try_recv() {
        if let ToChild::Abort(id) = message {
            aborted.push(id);
        }
    }
    assert_eq!(aborted, [left_id]);
}

#[tokio::test]
async fn a_dead_engine_fails_everyone_and_takes_nobody() {
    let (live, _inbox) = open();
    let (early, late) = (live.submit(request()).unwrap(), live.submit(request()).unwrap());
    live.accepted(late.id());
    live.fail_all(FailureKind::EngineFailed, "gone");
    let failed =
        Ending::Failed(Failure { kind: FailureKind::EngineFailed, message: "gone".into() });
    assert_eq!(early.accepted().await, Err(failed.clone()));
    assert_eq!(late.accepted().await, Ok(()));
    assert_eq!(late.next().await.ending, Some(failed));
    assert_eq!(live.submit(request()).err(), Some(NotTaken::Closed));
}

#[tokio::test]
async fn a_drain_is_over_when_the_last_request_is() {
    let (live, _inbox) = open();
    let ticket = live.submit(request()).unwrap();
    live.close();
    assert!(live.submit(request()).is_err());
    let waited = tokio::time::timeout(Duration::from_millis(20), live.idle()).await;
    assert!(waited.is_err(), "idle with a request inside");
    live.apply(&report(ticket.id(), &[5], Some(End::Stop)));
    live.idle().await;
    assert_eq!(live.count(), 0);
}

#[test]
fn every_request_has_a_place_for_its_abort() {
    let (live, mut inbox) = open();
    let tickets: Vec<_> = (0..3).map(|_| live.submit(request()).unwrap()).collect();
    assert_eq!(live.submit(request()).err(), Some(NotTaken::Full));
    drop(tickets);
    let mut frames = Vec::new();
    while let Ok(frame) = inbox.try_recv() {
        frames.push(frame);
    }
    assert_eq!(frames.len(), 6);
    assert_eq!(live.count(), 0);
    assert!(live.submit(request()).is_ok());
}

#[test]
fn an_engine_without_work_does_not_stall() {
    let (live, _inbox) = open();
    let ticket = live.submit(request()).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert!(live.stalled_for() >= Duration::from_millis(5));
    drop(ticket);
    assert_eq!(live.stalled_for(), Duration::ZERO);
}
