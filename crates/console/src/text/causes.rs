//! The words for states, rules and kinds of failures.

use model::error::{Error, Kind, Side};
use model::migration::{CutoverState, Method, MigrationState, Phase};
use model::policy::{Check, MetadataRule, Overwrite};
use model::task::{Priority, Visible};

use super::{Lang, Text, word_table};

word_table! {
    at_source: "Source: ", "源端：";
    at_target: "Target: ", "目标端：";
    waiting: "Waiting", "等待中";
    running: "Running", "运行中";
    paused: "Paused", "已暂停";
    task_failed: "Failed", "失败";
    succeeded: "Succeeded", "成功";
    retrying: "Retrying", "重试中";
    pausing: "Pausing", "暂停中";
    high: "high", "高";
    medium: "medium", "中";
    low: "low", "低";
    overwrite_never: "keep what is there", "保留目标端已有的";
    overwrite_newer: "replace if size differs or the source is newer", "大小不同或源端较新时替换";
    overwrite_checksum: "replace if checksums differ", "校验和不同时替换";
    overwrite_always: "always replace", "总是替换";
    check_digest: "digest; size, with a remark, where no digest can be had", "摘要；无法取得摘要时比较大小并注明";
    check_crc64: "CRC-64 where both sides have it", "两端都有时用 CRC-64";
    check_size: "size", "大小";
    check_none: "what was received is what was written", "以写入的内容为准";
    metadata_all: "all headers, user metadata and tags", "全部标头、用户元数据和标签";
    metadata_type: "Content-Type and Content-Encoding only", "仅 Content-Type 和 Content-Encoding";
    phase_created: "Not configured", "未配置";
    phase_loading: "Full copy", "全量复制";
    phase_following: "Following changes", "跟随更改";
    phase_stopping: "Stopping", "停止中";
    phase_stopped: "At rest", "已停止";
    cutting_over: "Cutting over", "割接中";
    cut_over_done: "Cut over", "已割接";
    rolling_back: "Rolling back", "回退中";
    rolled_back: "Rolled back", "已回退";
    rollback_failed: "Rollback failed", "回退失败";
    method_full: "full copy", "全量";
    method_incremental: "full copy, then changes", "全量加增量";
    method_none: "not configured", "未配置";
    did_stop: "Stopped by request", "按请求停止";
    did_start: "Started by request", "按请求启动";
    did_retry: "Retry of failed objects", "重试失败对象";
    did_limit: "Limit changed", "限速已更改";
    did_create: "Created by request", "按请求创建";
    ended_paused: "Came to rest", "已停止";
    ended_failed: "Ended as failed", "以失败结束";
    ended_succeeded: "Ended as succeeded", "以成功结束";

    cause_not_found: "The object does not exist", "对象不存在";
    cause_no_bucket: "The bucket does not exist", "桶不存在";
    cause_bad_credentials: "The keys are unknown or wrong", "密钥不存在或错误";
    cause_forbidden: "The keys do not permit this", "密钥没有权限";
    cause_clock_skew: "The clocks differ too much", "时钟相差过大";
    cause_throttled: "The server asks to slow down", "服务器要求降速";
    cause_unavailable: "The server fails for now", "服务器暂时失败";
    cause_timeout: "No answer in time", "超时未应答";
    cause_connect: "No connection", "无法连接";
    cause_changed: "Changed while it was copied", "复制期间被更改";
    cause_corrupt: "Bytes are missing or cannot be read", "字节缺失或无法读取";
    cause_mismatch: "Source and target differ after the copy", "复制后两端不一致";
    cause_wrong_region: "The bucket is in another region", "桶在其他区域";
    cause_deletes: "Too much would be removed", "将移除过多对象";
    cause_listing: "The listing is out of order", "列举顺序错误";
    cause_invalid_key: "This key cannot be stored there", "此处无法保存该键";
    cause_too_large: "The object is too large", "对象过大";
    cause_no_space: "There is no space left", "空间不足";
    cause_read_only: "It may not be written", "不可写入";
    cause_archived: "The object is archived", "对象已归档";
    cause_unsupported: "The server cannot do this", "服务器不支持";
    cause_list: "The list file cannot be used", "清单文件不可用";
    cause_other: "It failed", "失败";

    fix_not_found: "check the name", "检查名称";
    fix_no_bucket: "create the bucket or correct its name", "创建桶或更正名称";
    fix_bad_credentials: "check the access key and the secret key, then start again", "检查访问密钥和私有密钥，然后重新启动";
    fix_forbidden: "grant the access key permission to list and read (at the target also to write), then retry", "授予访问密钥列举和读取权限（目标端还需写入权限），然后重试";
    fix_clock_skew: "synchronise the clock of this machine; signatures are valid for 15 minutes", "同步本机时钟；签名有效期为 15 分钟";
    fix_wait: "no action needed while it retries; if it stays so, check the server", "重试期间无需操作；若持续出现，请检查服务器";
    fix_network: "check the address, the port and the network, then start again", "检查地址、端口和网络，然后重新启动";
    fix_changed: "retry when nothing writes to the object", "在没有写入时重试";
    fix_mismatch: "check the network, proxies and caches between this machine and the store, then retry", "检查本机与存储之间的网络、代理和缓存，然后重试";
    fix_region: "set the region of the bucket", "设置桶所在的区域";
    fix_deletes: "check the selection; if this is intended, use delete_most of the API", "检查选择范围；若确实需要，使用 API 的 delete_most";
    fix_listing: "set `order` of the store to `unknown`", "把存储的 `order` 设为 `unknown`";
    fix_invalid_key: "rename the object at the source, or choose another target; retrying does not help", "在源端重命名对象，或选择其他目标端；重试无效";
    fix_too_large: "choose a target with a larger limit", "选择上限更大的目标端";
    fix_no_space: "free space at the target, then start again", "在目标端释放空间，然后重新启动";
    fix_read_only: "make the target writable, then start again", "使目标端可写，然后重新启动";
    fix_archived: "restore the object from its archive tier, then retry", "先从归档层取回对象，然后重试";
    fix_unsupported: "choose an option that this store supports", "选择该存储支持的选项";
    fix_list: "correct the list file and upload it again", "更正清单文件并重新上传";
    fix_other: "see the message and the log of the service", "查看错误信息和服务日志";
}

impl Text {
    pub(crate) fn side(self, side: Side) -> &'static str {
        match side {
            Side::Source => self.at_source(),
            Side::Target => self.at_target(),
            Side::Local => "",
        }
    }

    pub(crate) fn state(self, state: Visible) -> &'static str {
        match state {
            Visible::Waiting => self.waiting(),
            Visible::Running => self.running(),
            Visible::Paused => self.paused(),
            Visible::Failed => self.task_failed(),
            Visible::Succeeded => self.succeeded(),
            Visible::Retrying => self.retrying(),
            Visible::Pausing => self.pausing(),
        }
    }

    pub(crate) fn priority_word(self, priority: Priority) -> &'static str {
        match priority {
            Priority::High => self.high(),
            Priority::Medium => self.medium(),
            Priority::Low => self.low(),
        }
    }

    pub(crate) fn overwrite_rule(self, rule: Overwrite) -> &'static str {
        match rule {
            Overwrite::Never => self.overwrite_never(),
            Overwrite::Newer => self.overwrite_newer(),
            Overwrite::Checksum | Overwrite::Crc64 => self.overwrite_checksum(),
            Overwrite::Always => self.overwrite_always(),
        }
    }

    pub(crate) fn check_rule(self, rule: Check) -> &'static str {
        match rule {
            Check::Digest => self.check_digest(),
            Check::Crc64 => self.check_crc64(),
            Check::Size => self.check_size(),
            Check::None => self.check_none(),
        }
    }

    pub(crate) fn metadata_rule(self, rule: MetadataRule) -> &'static str {
        match rule {
            MetadataRule::All => self.metadata_all(),
            MetadataRule::ContentType => self.metadata_type(),
        }
    }

    pub(crate) fn method(self, method: Option<Method>) -> &'static str {
        match method {
            Some(Method::Full) => self.method_full(),
            Some(Method::Incremental) => self.method_incremental(),
            None => self.method_none(),
        }
    }

    pub(crate) fn migration_state(self, state: &MigrationState) -> &'static str {
        match (state.cutover, state.phase) {
            (Some(CutoverState::Done), _) => self.cut_over_done(),
            (Some(CutoverState::RollingBack), _) => self.rolling_back(),
            (Some(CutoverState::InProgress | CutoverState::Committed), _) => self.cutting_over(),
            (Some(CutoverState::RolledBack), Phase::Succeeded) => self.rolled_back(),
            (Some(CutoverState::RollbackFailed), _) => self.rollback_failed(),
            (_, Phase::Created) => self.phase_created(),
            (_, Phase::Loading) => self.phase_loading(),
            (_, Phase::Following) => self.phase_following(),
            (_, Phase::Stopping) => self.phase_stopping(),
            (_, Phase::Stopped) => self.phase_stopped(),
            (_, Phase::Succeeded) => self.succeeded(),
            (_, Phase::Failed) => self.task_failed(),
        }
    }

    /// What an audit line did to a task; none for lines that changed nothing of it.
    pub(crate) fn happened(self, last: &str, method: &str, target: &str) -> Option<&'static str> {
        Some(match (last, method) {
            ("stop", _) => self.did_stop(),
            ("start", _) => self.did_start(),
            ("retry", _) => self.did_retry(),
            ("limit" | "bandwidth-policy", _) => self.did_limit(),
            ("new", _) if target.contains(" created ") => self.did_create(),
            ("batch", _) if target.contains(" stop ") => self.did_stop(),
            ("batch", _) if target.contains(" start ") => self.did_start(),
            ("batch", _) if target.contains(" retry ") => self.did_retry(),
            _ => return None,
        })
    }

    pub(crate) fn ended_as(self, state: Visible) -> &'static str {
        match state {
            Visible::Failed => self.ended_failed(),
            Visible::Succeeded => self.ended_succeeded(),
            _ => self.ended_paused(),
        }
    }

    /// What happened to an object or a task, in a few words.
    pub(crate) fn cause(self, kind: Kind) -> &'static str {
        match kind {
            Kind::NotFound => self.cause_not_found(),
            Kind::NoBucket => self.cause_no_bucket(),
            Kind::BadCredentials => self.cause_bad_credentials(),
            Kind::Forbidden => self.cause_forbidden(),
            Kind::ClockSkew => self.cause_clock_skew(),
            Kind::Throttled => self.cause_throttled(),
            Kind::Unavailable => self.cause_unavailable(),
            Kind::Timeout => self.cause_timeout(),
            Kind::Connect => self.cause_connect(),
            Kind::Changed => self.cause_changed(),
            Kind::Corrupt => self.cause_corrupt(),
            Kind::Mismatch => self.cause_mismatch(),
            Kind::WrongRegion => self.cause_wrong_region(),
            Kind::DeletesTooMuch => self.cause_deletes(),
            Kind::OutOfOrderListing => self.cause_listing(),
            Kind::InvalidKey => self.cause_invalid_key(),
            Kind::TooLarge => self.cause_too_large(),
            Kind::NoSpace => self.cause_no_space(),
            Kind::ReadOnly => self.cause_read_only(),
            Kind::Archived => self.cause_archived(),
            Kind::Unsupported | Kind::ChecksumRequired => self.cause_unsupported(),
            Kind::ListMissing
            | Kind::ListTooLarge
            | Kind::ListMalformed
            | Kind::ListEmpty
            | Kind::ListLineTooLong
            | Kind::ListMetadata => self.cause_list(),
            Kind::Invalid | Kind::Conflict | Kind::LeaseLost | Kind::Stopped | Kind::Internal => {
                self.cause_other()
            }
        }
    }

    /// What to do about a failure: the hint that came with it in English, else that of its kind.
    pub(crate) fn remedy(self, failure: &Error) -> String {
        let own = model::error::split_hint(&failure.message).1;
        let hint = match (self.lang(), own) {
            (Lang::En, Some(own)) => crate::html::plain(own),
            _ => self.fix(failure.kind).to_owned(),
        };
        self.sentence(&hint)
    }

    /// A hint as a sentence: with a capital letter and a full stop.
    pub(crate) fn sentence(self, hint: &str) -> String {
        let mut chars = hint.chars();
        let Some(first) = chars.next() else { return String::new() };
        let end = if hint.ends_with(['.', '。']) {
            ""
        } else if self.is_zh() && !hint.is_ascii() {
            "。"
        } else {
            "."
        };
        format!("{}{}{end}", first.to_uppercase(), chars.as_str())
    }

    fn fix(self, kind: Kind) -> &'static str {
        match kind {
            Kind::NotFound => self.fix_not_found(),
            Kind::NoBucket => self.fix_no_bucket(),
            Kind::BadCredentials => self.fix_bad_credentials(),
            Kind::Forbidden => self.fix_forbidden(),
            Kind::ClockSkew => self.fix_clock_skew(),
            Kind::Throttled | Kind::Unavailable => self.fix_wait(),
            Kind::Timeout | Kind::Connect => self.fix_network(),
            Kind::Changed => self.fix_changed(),
            Kind::Corrupt | Kind::Mismatch => self.fix_mismatch(),
            Kind::WrongRegion => self.fix_region(),
            Kind::DeletesTooMuch => self.fix_deletes(),
            Kind::OutOfOrderListing => self.fix_listing(),
            Kind::InvalidKey => self.fix_invalid_key(),
            Kind::TooLarge => self.fix_too_large(),
            Kind::NoSpace => self.fix_no_space(),
            Kind::ReadOnly => self.fix_read_only(),
            Kind::Archived => self.fix_archived(),
            Kind::Unsupported => self.fix_unsupported(),
            Kind::ListMissing
            | Kind::ListTooLarge
            | Kind::ListMalformed
            | Kind::ListEmpty
            | Kind::ListLineTooLong
            | Kind::ListMetadata => self.fix_list(),
            Kind::Invalid
            | Kind::Conflict
            | Kind::LeaseLost
            | Kind::Stopped
            | Kind::ChecksumRequired
            | Kind::Internal => self.fix_other(),
        }
    }
}
