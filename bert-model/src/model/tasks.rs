//! BERT with each of its heads, with the names and the layout of Hugging Face transformers.
//!
//! Pretraining (Devlin et al. 2018, §3.1) has a masked-LM and a next-sentence head. Fine-tuning (§4) adds one dense
//! layer: on the pooled output for texts and pairs, on every token for tags and answer spans.

use burn::prelude::*;

use super::heads::{MaskedLmHead, TaskHead};
use super::linear::Linear;
use super::{BertInput, BertModel, Initializer};
use crate::config::BertConfig;
use crate::ops;

/// The masked-LM head on the hidden states at the flat positions `b·T + t`, the masked tokens, only: `[M, V]`.
fn masked_lm(bert: &BertModel, head: &MaskedLmHead, hidden: Tensor<3>, positions: Tensor<1, Int>) -> Tensor<2> {
    let masked = ops::gather_rows(hidden.flatten::<2>(0, 1), positions);
    head.forward(masked, bert.embeddings.word.weight.val())
}

/// `bert_with!(Name { init_bert, head: Type = init_head })`: a model of BERT and its heads, with `init` and
/// `init_with`.
macro_rules! bert_with {
    ($(#[$doc:meta])* $name:ident { $bert:ident, $($(#[$head_doc:meta])* $head:ident: $kind:ty = $init:expr),+ }) => {
        $(#[$doc])*
        #[derive(Module, Debug)]
        pub struct $name {
            /// BERT without a head.
            pub bert: BertModel,
            $($(#[$head_doc])* pub $head: $kind,)+
        }

        impl $name {
            /// Initializes a model. The random weights come from the generator of `device` (see [`Device::seed`]).
            ///
            /// # Panics
            /// If the configuration is invalid (see [`BertConfig::validate`]).
            pub fn init(config: &BertConfig, device: &Device) -> Self {
                Self::init_with(&mut Initializer::from_device(config, device))
            }

            /// Initializes a model with weights from `initializer`.
            pub fn init_with(initializer: &mut Initializer) -> Self {
                let bert = BertModel::$bert(initializer);
                Self { bert, $($head: $init(initializer),)+ }
            }
        }
    };
}

/// The next-sentence head, pooled output to 2 logits: 0 = is next, 1 = random.
fn next_sentence_head(initializer: &mut Initializer) -> Linear {
    initializer.linear(initializer.config().hidden_size, 2)
}

/// A head with one logit per label.
fn label_head(initializer: &mut Initializer) -> TaskHead {
    TaskHead::init(initializer.config().num_labels(), initializer)
}

/// A head with one logit per choice.
fn choice_head(initializer: &mut Initializer) -> TaskHead {
    TaskHead::init(1, initializer)
}

/// A head with a start and an end logit per token, without dropout.
fn span_head(initializer: &mut Initializer) -> Linear {
    initializer.task_head(2)
}

bert_with! {
    /// BERT with both pretraining heads (Devlin et al. 2018, §3.1).
    BertForPreTraining { init_with_pooler,
        /// The masked-LM head (task 1).
        mlm: MaskedLmHead = MaskedLmHead::init,
        /// The next-sentence head (task 2), pooled output to 2 logits: 0 = is next, 1 = random.
        nsp: Linear = next_sentence_head
    }
}

impl BertForPreTraining {
    /// The logits of both tasks: masked LM at the flat positions `b·T + t` only, next sentence for each pair.
    ///
    /// # Shapes
    /// - `positions`: `[M]`
    /// - output: `[M, V]` and `[B, 2]`
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`, or a position is not below B·T.
    pub fn forward(&self, input: BertInput, positions: Tensor<1, Int>) -> (Tensor<2>, Tensor<2>) {
        let hidden = self.bert.encode(input);
        (masked_lm(&self.bert, &self.mlm, hidden.clone(), positions), self.nsp.forward(self.bert.pool(hidden)))
    }

    /// The logits of masked LM alone, without computing what only the other task needs; shapes as in
    /// [`forward`](Self::forward).
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`, or a position is not below B·T.
    pub fn forward_mlm(&self, input: BertInput, positions: Tensor<1, Int>) -> Tensor<2> {
        masked_lm(&self.bert, &self.mlm, self.bert.encode(input), positions)
    }
}

bert_with! {
    /// BERT with the masked-LM head (Devlin et al. 2018, §3.1, task 1).
    BertForMaskedLM { init_without_pooler,
        /// The masked-LM head, hidden states to logits of WordPieces.
        mlm: MaskedLmHead = MaskedLmHead::init
    }
}

impl BertForMaskedLM {
    /// The logits of every WordPiece at the flat positions `b·T + t`.
    ///
    /// # Shapes
    /// - `positions`: `[M]`
    /// - output: `[M, V]`
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`, or a position is not below B·T.
    pub fn forward(&self, input: BertInput, positions: Tensor<1, Int>) -> Tensor<2> {
        masked_lm(&self.bert, &self.mlm, self.bert.encode(input), positions)
    }
}

bert_with! {
    /// BERT with the next-sentence head (Devlin et al. 2018, §3.1, task 2).
    BertForNextSentencePrediction { init_with_pooler,
        /// The next-sentence head, pooled output to 2 logits: 0 = is next, 1 = random.
        nsp: Linear = next_sentence_head
    }
}

impl BertForNextSentencePrediction {
    /// The logits `[B, 2]` of each pair: 0 = is next, 1 = random.
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`.
    pub fn forward(&self, input: BertInput) -> Tensor<2> {
        self.nsp.forward(self.bert.pool(self.bert.encode(input)))
    }
}

bert_with! {
    /// BERT for a label, several labels or a value for each text or pair (Devlin et al. 2018, §4.1, GLUE).
    BertForSequenceClassification { init_with_pooler,
        /// The head, pooled output to one logit per label.
        classifier: TaskHead = label_head
    }
}

impl BertForSequenceClassification {
    /// The logits `[B, C]` of each text or pair.
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`.
    pub fn forward(&self, input: BertInput) -> Tensor<2> {
        self.head(self.bert.encode(input))
    }

    /// The logits `[B, C]` from the last hidden states `[B, T, H]`, of which only those of `[CLS]` are used.
    pub fn head(&self, hidden: Tensor<3>) -> Tensor<2> {
        self.classifier.forward(self.bert.pool(hidden))
    }
}

bert_with! {
    /// BERT for a label for each token (Devlin et al. 2018, §5.3, named entity recognition).
    BertForTokenClassification { init_without_pooler,
        /// The head, each hidden state to one logit per label.
        classifier: TaskHead = label_head
    }
}

impl BertForTokenClassification {
    /// The logits `[B, T, C]` of each token.
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`.
    pub fn forward(&self, input: BertInput) -> Tensor<3> {
        self.head(self.bert.encode(input))
    }

    /// The logits `[B, T, C]` from the last hidden states `[B, T, H]`.
    pub fn head(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.classifier.forward(hidden)
    }
}

bert_with! {
    /// BERT for the span of a text that answers a question (Devlin et al. 2018, §4.2 and §4.3, SQuAD).
    BertForQuestionAnswering { init_without_pooler,
        /// The head, each hidden state to a start and an end logit.
        qa_outputs: Linear = span_head
    }
}

impl BertForQuestionAnswering {
    /// The start and the end logits of each token, each `[B, T]`.
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`.
    pub fn forward(&self, input: BertInput) -> (Tensor<2>, Tensor<2>) {
        self.head(self.bert.encode(input))
    }

    /// The start and the end logits, each `[B, T]`, from the last hidden states `[B, T, H]`.
    pub fn head(&self, hidden: Tensor<3>) -> (Tensor<2>, Tensor<2>) {
        let logits = self.qa_outputs.forward(hidden);
        let column = |index: usize| logits.clone().slice_dim(2, index..index + 1).squeeze_dim(2);
        (column(0), column(1))
    }
}

bert_with! {
    /// BERT for the best of several continuations of a text (Devlin et al. 2018, §4.4, SWAG).
    BertForMultipleChoice { init_with_pooler,
        /// The head, pooled output to one logit.
        classifier: TaskHead = choice_head
    }
}

impl BertForMultipleChoice {
    /// The logits of the choices of each example.
    ///
    /// # Shapes
    /// - `input`: `[B·C, T]`, the C choices of each example in consecutive rows
    /// - output: `[B, C]`
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`, or `choices` is 0 or does not divide the rows.
    pub fn forward(&self, input: BertInput, choices: usize) -> Tensor<2> {
        let scores = self.head(self.bert.encode(input));
        let [rows, _] = scores.dims();
        scores.reshape([rows / choices, choices])
    }

    /// The logit `[B·C, 1]` of each text from the last hidden states `[B·C, T, H]`, of which only those of `[CLS]` are
    /// used.
    pub fn head(&self, hidden: Tensor<3>) -> Tensor<2> {
        self.classifier.forward(self.bert.pool(hidden))
    }
}
