//! Error sentences in Chinese, by number, for callers that send `X-Language: zh-cn`. The English sentence follows,
//! because it names the field and the remedy.

/// What a number means; none for numbers without a sentence of their own.
pub(crate) fn sentence(code: &str) -> Option<&'static str> {
    if code.starts_with("DCS.") {
        return None;
    }
    let number: u16 = code.rsplit('.').next()?.parse().ok()?;
    if code.starts_with("APIGW.") {
        return Some(match number {
            101 => "API 不存在或未发布",
            201 => "请求体过大",
            301 => "身份认证信息错误",
            302 => "没有访问该 API 的权限",
            308 => "请求过于频繁",
            _ => "服务内部错误",
        });
    }
    Some(match number {
        1 | 1001 => "服务内部错误",
        5 | 1008 => "不支持该请求方法",
        51 => "查询范围参数不合法",
        52 => "状态参数不合法",
        54 => "任务 ID 不合法",
        57 => "源端参数不合法",
        58 => "目的端参数不合法",
        59 => "线程数不合法",
        61 => "任务参数格式不正确",
        63 => "任务正在进行，不能删除，请先停止",
        64 => "请求参数不合法",
        65 => "任务已启动",
        66 => "任务未在进行中，不能停止",
        67 => "请求体不是 JSON",
        70 => "任务已完成",
        75 | 77 => "任务数量超过配额，请稍后再试",
        78 => "描述中含有不允许的字符",
        79 => "不支持该源端区域",
        80 => "不支持该目的端区域",
        81 => "自定义域名不可用",
        83 => "流量控制时间段过多",
        84 => "带宽值超出范围",
        85 => "流量控制时间段重叠",
        86 => "修改流量控制失败",
        87 => "流量控制时间不合法",
        89 => "源端对象不存在",
        153 => "查询桶失败",
        155 => "查询桶所在区域失败",
        157 => "消息主题不存在",
        167 => "失败对象列表不存在",
        205 => "只读用户不能创建、修改或删除",
        308 => "失败对象列表不完整",
        1002 => "参数类型不合法",
        1003 => "参数不满足约束",
        1004 | 1007 => "缺少必选参数",
        1009 => "资源不存在",
        1014 => "无法获取源端桶信息",
        1020 => "无法访问目的端桶",
        1032 => "缺少 CDN 认证密钥",
        1036 => "迁移任务组当前状态不允许该操作",
        1038 => "仅正在执行的迁移任务组可以暂停",
        1039 => "仅已暂停的迁移任务组可以恢复",
        1040 => "仅失败的迁移任务组可以重启",
        2004 => "服务不可用",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changed sentences are seen in the review of the snapshot; `INSTA_UPDATE=always cargo test -p api` writes it.
    #[test]
    fn chinese_sentences_are_those_of_the_snapshot() {
        use std::fmt::Write as _;
        let mut catalogue = String::new();
        for prefix in ["OMS", "APIGW"] {
            for number in 0..=9999 {
                let code = format!("{prefix}.{number:04}");
                // Gateway codes without a sentence of their own share one; the first shows it.
                let shared = prefix == "APIGW" && number > 0 && sentence(&code) == sentence("APIGW.0000");
                if let Some(text) = sentence(&code).filter(|_| !shared) {
                    writeln!(catalogue, "{code} {text}").unwrap();
                }
            }
        }
        insta::with_settings!({
            snapshot_path => "../../snapshots", prepend_module_to_snapshot => false, omit_expression => true
        }, {
            insta::assert_snapshot!("api_errors_zh", catalogue);
        });
    }
}
