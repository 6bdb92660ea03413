"""Make the Word and PDF documents of the sample handbook.

Run by hand, only after a text below was changed:

    pip install python-docx reportlab
    python examples/make_handbook.py

The script writes three .docx and three .pdf files into ``examples/handbook``
and leaves the Markdown and HTML documents there alone. In the texts, a blank
line ends a block; ``#`` and ``##`` start a heading, ``-`` a list item and ``|``
a table row. The first line of a text is its title.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from docx import Document
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import cm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table

HANDBOOK = Path(__file__).parent / "handbook"
AUTHOR = "Hetting Clinic"
CHINESE_FONT = "STSong-Light"

Rows = list[list[str]]

ENGLISH: dict[str, str] = {}
CHINESE: dict[str, str] = {}

ENGLISH["mardotrel-dosing.pdf"] = """
# Mardotrel: Dosing and Monitoring

Mardotrel is a capsule against chronic itching of nervous origin. It is listed in section D
of the clinic formulary. Treatment with Mardotrel is started in the Skin Clinic of Hetting
Clinic and may be continued by the family physician.

## Forms and packs

Mardotrel is stocked as a capsule of 15 mg and a capsule of 30 mg. One pack of Mardotrel
holds 56 capsules. The capsules are swallowed whole and are never opened.

## Usual dose

| Phase | Dose of Mardotrel |
| Weeks 1 and 2 | 15 mg twice a day |
| From week 3 | 30 mg twice a day |
| Maximum | 90 mg per day |

The starting dose of Mardotrel is 15 mg twice a day, taken with food. After two weeks the dose
of Mardotrel is raised to 30 mg twice a day. The maximum dose of Mardotrel is 90 mg per day.
Doses of Mardotrel above 60 mg per day are countersigned by the head of the Skin Clinic,
Dr Ilse Varnholt.

Mardotrel is not given to patients under 16 years of age. Patients over 80 years of age stay
on the starting dose.

## Reduced liver function

Patients with reduced liver function receive 15 mg of Mardotrel once a day. Mardotrel is not
used in patients with cirrhosis. No adjustment of Mardotrel is needed for reduced kidney
function.

## Monitoring

Liver values are checked before treatment with Mardotrel, in week 3 and in week 12.
Mardotrel is stopped when a liver value exceeds four times the upper limit. The nurse of the
Skin Clinic enters the liver values on form M-7.

The most frequent side effect of Mardotrel is drowsiness in the first week. Patients do not
drive during the first 5 days of treatment with Mardotrel.

## Missed dose and duration

A missed dose of Mardotrel may be taken up to 3 hours later than usual. After that time the
patient leaves the dose out. Treatment with Mardotrel is reviewed after 20 weeks at the
latest. Mardotrel may be stopped without tapering.

## Pregnancy

Mardotrel must not be taken in pregnancy. Contraception is continued for 5 weeks after the
last capsule of Mardotrel. A pregnancy test is done before the first prescription and is
noted in the record.

## Interactions

- Mardotrel and Zelvorin must not be taken together. The interval between the two drugs is
  given in the chapter on Zelvorin.
- Mardotrel weakens the effect of blood thinners, so clotting is checked every week.
- Alcohol is avoided for the whole time of treatment with Mardotrel.

## Storage

Mardotrel is stored in its original amber bottle between 15 and 25 degrees Celsius. An opened
bottle of Mardotrel is used within 100 days.
"""

ENGLISH["clinic-statute.pdf"] = """
# Statute of Hetting Clinic

This Statute governs the bodies of Hetting Clinic. It was adopted by the founding assembly and
binds all sites and departments of the clinic.

## Part One: General provisions

Article 1. Hetting Clinic is a non-profit institution for outpatient care. It has a main site
in Mill Lane and a branch in East Street.

Article 2. The financial year of Hetting Clinic begins on 1 July and ends on 30 June.

Article 3. The seal of Hetting Clinic is kept by the Legal Office. The seal is used only
together with a handwritten signature.

## Part Two: The Board

Article 4. The Board of Hetting Clinic has seven members. Two members of the Board are elected
by the employees. The other five members are appointed by the city council.

Article 5. A member of the Board serves for a term of four years. A member may be re-elected
once.

Article 6. The Board meets at least six times a year. Its meetings are not public.

Article 7. The chair convenes the Board with notice of at least 10 days. In urgent cases the
notice may be shortened to 36 hours. The agenda and the papers are sent out together with the
notice.

Article 8. The Board has a quorum when five members are present. The Board decides by a simple
majority of the members present. In the event of a tie the chair has the casting vote.

Article 9. Minutes of each meeting of the Board are written by the secretary. The minutes are
sent to the members within 8 days.

## Part Three: The clinical director

Article 10. The clinical director is elected by the Board for five years. The clinical director
manages the daily work of the clinic and represents it in public.

Article 11. The clinical director is represented in absence by the head nurse. A representation
of more than 60 days needs the consent of the Board.

## Part Four: Money and contracts

Article 12. Contracts above 40,000 euros are signed jointly by the chair of the Board and the
treasurer. Loans of any amount need a decision of the Board.

Article 13. The treasurer presents the draft budget to the Board by 20 April. The Board adopts
the budget before the financial year begins.

Article 14. The annual report is published by 15 October. The annual report contains the
accounts, the number of patients treated and the report of the ethics committee.

Article 15. The accounts are audited by an outside auditor. The same auditor may not be
appointed for more than six years in a row.

## Part Five: Ethics and conflicts of interest

Article 16. The ethics committee has five members. One member of the ethics committee
represents the patients. The ethics committee meets every second month.

Article 17. Every research project needs the approval of the ethics committee. The ethics
committee decides within 45 days of receiving the complete application.

Article 18. Employees declare every gift worth more than 35 euros. The declaration is made to
the Legal Office within seven days. Gifts of money are always refused.

Article 19. A member of the Board who has a personal interest in a matter leaves the room during
the discussion and the vote.

## Part Six: Final provisions

Article 20. The Statute is amended by the votes of at least six members of the Board. An
amendment takes effect on the first day of the following quarter.

Article 21. If Hetting Clinic is dissolved, its assets go to the Brackwater Hospice Fund. The
dissolution needs a unanimous vote of the Board.
"""

ENGLISH["leave-and-working-time.docx"] = """
# Leave and Working Time

This chapter applies to all employees of Hetting Clinic. Questions are answered by the HR Office
in room 2.08. The HR Office is open from Monday to Thursday between 10:00 and 15:00. The HR
Office is closed on Fridays. The HR Office has extension 342. The head of the HR Office is Priya
Dunmore.

## Annual leave

Every full-time employee has 27 days of annual leave. After ten years of service an employee has
31 days of annual leave. Part-time employees receive annual leave in proportion to their hours.

An employee requests leave of more than five days at least four weeks in advance. The request is
approved by the line manager on form H-2. Up to 6 days of unused annual leave may be carried over.
Carried-over leave must be taken by 30 April of the next year.

## Special leave

| Occasion | Paid leave |
| Own wedding | 2 days |
| Moving house | 1 day |
| Death of a close relative | 4 days |
| Birth of a child | 18 weeks |
| Study leave, every two years | 5 days |

On the death of a close relative an employee receives 4 days of paid leave. Each parent receives
18 weeks of paid parental leave after the birth of a child. An employee who moves house receives
1 day of paid leave. Special leave is taken within two months of the occasion.

## Unpaid leave

The head of the HR Office approves unpaid leave of up to 3 months. Longer unpaid leave is approved
by the clinical director. Unpaid leave does not count towards the years of service.

## Sickness

A sick employee calls the line manager before 7:30 on the first day of sickness. A sick note is
required from the third day of sickness. The sick note goes to the HR Office and not to the line
manager. Full pay continues for 9 weeks of sickness.

## Working time

- The regular working week of a full-time employee has 38.5 hours.
- The break at noon lasts at least 40 minutes and is not paid.
- Overtime is ordered by the line manager in writing.
- Overtime is compensated with free time within three months.

Employees record their hours at the terminal next to the staff entrance. A forgotten entry is
corrected on form H-5 by the end of the week.

## Probation and notice

The probation period lasts five months. During probation either side may end the contract with
notice of 10 days. After probation the notice period is 7 weeks to the end of a month. Notice is
given in writing to the HR Office.

On the last working day the employee returns the staff badge and the keys to the HR Office. A lost
staff badge costs 25 euros.
"""

ENGLISH["vaccine-cold-chain.docx"] = """
# Vaccine Storage and Cold Chain

This chapter describes how vaccines are stored at the Mill Lane site of Hetting Clinic. The cold
chain coordinator is Tomasz Belling, who has extension 227. The deputy of the cold chain
coordinator is the duty pharmacist.

## Refrigerators

| Refrigerator | Room | Contents |
| A | 1.14 | travel vaccines |
| B | 0.06 | childhood vaccines |
| C | 0.06 | reserve, kept empty |

Refrigerator A stands in room 1.14 and holds the travel vaccines. Refrigerator B stands in room
0.06 and holds the childhood vaccines. Refrigerator C is kept empty and running as a reserve. No
food and no laboratory samples may be placed in a vaccine refrigerator.

A vaccine refrigerator is filled to at most 70 percent, so that the air can circulate. Vaccines
never touch the back wall. Boxes with the earliest expiry date stand in front.

## Temperature

The clinic keeps a narrower range than the manufacturers ask for. The target range of the vaccine
refrigerators is 3.0 to 6.5 degrees Celsius. A nurse reads the temperature every day at 7:45 and
at 17:15. The reading is entered in the temperature log on the door of the refrigerator.

An alarm sounds when the temperature has been outside the range for 12 minutes. The person who
hears the alarm calls the cold chain coordinator at once. The temperature loggers are calibrated
every 14 months.

## After an alarm

- Leave the door of the refrigerator closed.
- Move the vaccines to refrigerator C if the cause cannot be removed within half an hour.
- Put a red tag on every box that was exposed.
- Write down the highest temperature and the duration.

Vaccines with a red tag must not be used. A pharmacist decides about vaccines with a red tag within
24 hours. Released vaccines receive a green tag, and all others are destroyed.

## Transport

Vaccines travel to the East Street branch in the blue transport box. Ice packs lie at room
temperature for 35 minutes before they go into the transport box. The blue transport box keeps
vaccines cold for 5 hours. The driver hands the box to a nurse in person and never leaves it at the
reception desk.

## Orders and stock

Vaccines are ordered every Wednesday before 14:00. The order is signed by the cold chain
coordinator. The minimum stock of influenza vaccine is 40 doses. The minimum stock of every other
vaccine is 12 doses.

## Cleaning and power failure

The refrigerators are cleaned on the first Monday of every second month. The emergency generator
starts within 90 seconds of a power failure. The generator supplies the sockets marked with an
orange dot, and every vaccine refrigerator must be plugged into one of them. The generator is
tested on the second Tuesday of each month by the facilities team.

## Training

Every nurse who handles vaccines takes the cold chain course once a year. The course lasts 75
minutes and ends with a short test.
"""

CHINESE["purchasing-rules.docx"] = """
# 采购与报销规定

本规定适用于禾汀诊所东街门诊部的全部采购和报销。采购办公室设在三楼306室，分机是637。
采购办公室每周一至周四的13:30到16:30对外办公，周五不办公。采购办公室主任是方若琳。

## 采购权限

| 金额 | 审批人 | 方式 |
| 3000元以下 | 科室主任 | 直接购买 |
| 3000元至5万元 | 采购办公室主任 | 三家比价 |
| 5万元以上 | 招标小组 | 公开招标 |

3000元以下的采购由科室主任审批。3000元至5万元的采购必须取得三家供应商的报价，由采购办公室
主任审批。5万元以上的采购由招标小组公开招标。招标小组由五人组成，其中至少两人是临床医生。
不得把一项采购拆成几项，以规避审批。

## 紧急采购

设备突然损坏、影响诊疗的，科室可以紧急采购。紧急采购的手续应当在24小时内补齐。一年内同一
科室的紧急采购不得超过5次。

## 验收与付款

- 货物到达后，使用科室在五个工作日内完成验收。
- 验收单由使用科室和采购办公室共同签字。
- 验收合格后45天内付款。
- 设备合同保留合同金额的百分之八作为质保金。

质保金在设备运行满18个月以后退还。验收不合格的货物放在地下一层的待退区，由采购办公室联系
供应商退货。

## 固定资产

单价2000元以上的物品登记为固定资产。固定资产贴银色标签，每年11月盘点一次。固定资产报废由
财务主管顾敏芝批准。报废的电脑在移交之前，必须由信息科拆除硬盘。

## 费用报销

报销申请应当在发票日期后60天内提交。超过期限的发票不予报销。报销单由申请人、科室主任和财务
主管依次签字。报销款每月10日和25日转入员工的工资卡。

出差住宿费的上限是每晚420元。出差期间的餐费补助是每天95元。员工晚上22:00以后下班的，可以
报销出租车费。高铁只报销二等座。

## 备用金

每个科室可以领取800元备用金。备用金由护士长保管，每月底与财务对账。备用金不得用于购买食品
和礼品。
"""

CHINESE["controlled-drugs.pdf"] = """
# 特殊药品管理办法

## 第一章 总则

第一条 为了保证特殊药品的安全使用，制定本办法。

第二条 本办法所称特殊药品，是指安络酮注射液和宁痛舒片。东街药房主任沈嘉禾负责特殊药品的管理。

第三条 东街药房每天8:00开门，20:30关门，分机是642。特殊药品只在东街药房的2号窗口发放。

## 第二章 保管

第四条 特殊药品存放在双锁保险柜内。两把钥匙由药房主任和当班药师分别保管，任何人不得同时持有
两把钥匙。

第五条 当班药师每天8:10和20:10各清点一次特殊药品。清点结果由两人签字。

第六条 保险柜的密码每90天更换一次。药师离职的，密码在离职当天更换。

## 第三章 处方与领用

第七条 特殊药品使用红色处方。只有取得特殊药品处方资格的医生可以开具红色处方。处方资格每两年
考核一次。

第八条 红色处方自开具之日起2天内有效。每张红色处方的用量不得超过3日。

第九条 治疗室领用安络酮注射液，由护士长填写领用单。治疗室的安络酮注射液基数是6支，不得超过基数
领用。

第十条 使用后的空安瓿应当在48小时内交回药房。空安瓿数量不符的，药房暂停向该科室发药。

## 第四章 剂量

第十一条 安络酮注射液的成人剂量是一次2.5毫克，两次用药至少间隔6小时。安络酮注射液每日总量不得超过
10毫克。

第十二条 宁痛舒片的成人剂量是一次40毫克，每日两次。宁痛舒片每日总量不得超过160毫克。

第十三条 未满14岁的病人不得使用宁痛舒片。

| 药品 | 一次剂量 | 每日上限 |
| 安络酮注射液 | 2.5毫克 | 10毫克 |
| 宁痛舒片 | 40毫克 | 160毫克 |

## 第五章 差错与销毁

第十四条 发现特殊药品短缺，应当在30分钟内报告药房主任。药房主任在当天书面报告医务科。

第十五条 过期的特殊药品每季度销毁一次。销毁时，药师、感控护士和保安三人必须同时在场。

第十六条 红色处方保存5年。特殊药品登记册保存9年。

## 第六章 附则

第十七条 违反本办法的员工，暂停接触特殊药品6个月。

第十八条 本办法由药事委员会解释。药事委员会每年12月修订一次本办法。
"""


def blocks(text: str, *, joiner: str) -> Iterator[tuple[str, str | Rows]]:
    """Yield the blocks of a text as (kind, content); joiner joins wrapped lines."""
    for chunk in text.strip().split("\n\n"):
        lines = chunk.splitlines()
        if lines[0].startswith("|"):
            yield "table", [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        elif lines[0].startswith("- "):
            for item in chunk.removeprefix("- ").split("\n- "):
                yield "item", joiner.join(line.strip() for line in item.splitlines())
        elif lines[0].startswith("#"):
            marks, _, title = lines[0].partition(" ")
            yield f"h{len(marks)}", title
        else:
            yield "paragraph", joiner.join(lines)


def title_of(text: str) -> str:
    """Return the title, which stands on the first line of a text."""
    return text.strip().splitlines()[0].removeprefix("# ")


def write_docx(path: Path, text: str, *, chinese: bool) -> None:
    """Write a text as a Word document with real headings, lists and tables."""
    document = Document()
    properties = document.core_properties
    properties.title, properties.author = title_of(text), AUTHOR
    properties.language, properties.comments = "zh-CN" if chinese else "en", ""
    for kind, content in blocks(text, joiner="" if chinese else " "):
        if isinstance(content, list):
            table = document.add_table(rows=len(content), cols=len(content[0]), style="Table Grid")
            for row, cells in zip(table.rows, content, strict=True):
                for cell, value in zip(row.cells, cells, strict=True):
                    cell.text = value
            document.add_paragraph()
        elif kind in ("h1", "h2"):
            document.add_heading(content, level=int(kind[1]))
        else:
            document.add_paragraph(content, style="List Bullet" if kind == "item" else None)
    document.save(str(path))


def write_pdf(path: Path, text: str, *, chinese: bool) -> None:
    """Write a text as a PDF; Chinese uses a font that PDF readers supply themselves."""
    font, bold = (CHINESE_FONT,) * 2 if chinese else ("Helvetica", "Helvetica-Bold")
    body = ParagraphStyle(
        "body", fontName=font, fontSize=11, leading=17, spaceAfter=8,
        wordWrap="CJK" if chinese else None,
    )  # fmt: skip
    styles = {
        "paragraph": body,
        "item": ParagraphStyle("item", body, leftIndent=14, bulletIndent=2, spaceAfter=4),
        "h1": ParagraphStyle("h1", body, fontName=bold, fontSize=18, leading=24, spaceAfter=12),
        "h2": ParagraphStyle("h2", body, fontName=bold, fontSize=13, spaceBefore=8, keepWithNext=1),
    }
    story: list[Flowable] = []
    for kind, content in blocks(text, joiner="" if chinese else " "):
        if isinstance(content, list):
            grid = [("GRID", (0, 0), (-1, -1), 0.5, colors.grey), ("FONT", (0, 0), (-1, -1), font)]
            story += [Table(content, style=grid, hAlign="LEFT"), Spacer(1, 10)]
        else:
            bullet = "\N{BULLET}" if kind == "item" else None
            story.append(Paragraph(escape(content), styles[kind], bulletText=bullet))
    SimpleDocTemplate(
        str(path), pagesize=A4, title=title_of(text), author=AUTHOR, subject="Handbook",
        lang="zh-CN" if chinese else "en", invariant=1,
        leftMargin=2.5 * cm, rightMargin=2.5 * cm, topMargin=2.5 * cm, bottomMargin=2.5 * cm,
    ).build(story)  # fmt: skip


def main() -> None:
    """Write all Word and PDF documents of the handbook."""
    pdfmetrics.registerFont(UnicodeCIDFont(CHINESE_FONT))
    for texts, chinese in ((ENGLISH, False), (CHINESE, True)):
        for name, text in texts.items():
            write = write_pdf if name.endswith(".pdf") else write_docx
            write(HANDBOOK / name, text, chinese=chinese)


if __name__ == "__main__":
    main()
